"""The constraint of docs/extending.md, trained for two steps on the real stack by one key."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.tiny_model import ensure_checkpoint

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def metrics(
    tmp_path_factory: pytest.TempPathFactory,
    module_training: Callable[..., Any],
    repo_root: Path,
) -> dict[int, dict[str, Any]]:
    train_file, val_file = prepare_micro_apps(tmp_path_factory.mktemp("data"), 64, 16)
    run = module_training(
        *(f"data.train_files={train_file}", f"data.val_files={val_file}"),
        f"actor_rollout_ref.model.path={ensure_checkpoint()}",
        *("trainer.save_freq=-1", "trainer.total_training_steps=2"),
        f"constraint.kind='{repo_root}/docs/examples/repetition.py:Repetition'",
        "constraint.lambda=100.0",
    )
    run.start()
    run.finish()
    found: dict[int, dict[str, Any]] = run.metrics()
    return found


def test_it_trains_and_its_penalty_is_in_the_advantages(metrics: dict[int, Any]) -> None:
    assert sorted(metrics) == [1, 2]
    for data in metrics.values():
        assert math.isfinite(data["actor/grad_norm"])
        assert data["constraint/repeated_token_ratio"] > 0
        # A repeated token loses 100; normalised by group, no advantage of its own comes near.
        assert data["critic/advantages/min"] < -90
        assert data["critic/returns/min"] > -90

"""Which differences a resumed run tells of."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.run.metrics_log import drop_after
from recipe.online_refiner.run.resumed_state import Changed, changed

Compose = Callable[..., DictConfig]

OLDER_RUN = Path(__file__).resolve().parents[1] / "older_run"

BEFORE: dict[str, Any] = {
    "constraint": {"kind": "dynamic", "lambda": 1.0, "gone": 1, "chord": {"peak": 0.9}},
    "lambda": 0.5,
    "smoothed_ratio": None,
}


def test_a_changed_key_is_named_whole_and_what_is_equal_is_not() -> None:
    now = BEFORE | {"constraint": BEFORE["constraint"] | {"lambda": 0.1, "chord": {"peak": 0.5}}}
    assert list(changed(BEFORE, now)) == [
        Changed("constraint.chord.peak", 0.9, 0.5),
        Changed("constraint.lambda", 1.0, 0.1),
    ]
    assert list(changed(BEFORE, BEFORE)) == []


def test_a_key_that_only_one_version_has_is_no_difference() -> None:
    newer = {"kind": "dynamic", "lambda": 1.0, "distill": {"top_k": 20}, "chord": {"peak": 0.9}}
    assert list(changed(BEFORE, BEFORE | {"constraint": newer})) == []


def test_a_checkpoint_of_an_older_commit_is_gone_on_from_as_it_is(composed: Compose) -> None:
    """The state that commit 1190834 saved after two steps, under today's plan."""
    text = (OLDER_RUN / "checkpoints" / "global_step_2" / "refine_state.json").read_text()
    before = json.loads(text)
    given = ("constraint.inject=sft", "constraint.lambda=1.0", "trainer.total_training_steps=2")
    plan = resolve(composed(*given))
    constraint = constraint_class(plan.config)(plan)
    constraint.restore(before)
    state = constraint.state(2, total_steps=2)
    # Improvement ratios of 0.25 and 0.5625, with 0.9 of what was before.
    assert state["smoothed_ratio"] == pytest.approx(0.9 * 0.25 + 0.1 * 0.5625)
    now = {"constraint": plan.settings.constraint.dump(), "total_training_steps": 2, **state}
    assert list(changed(before, now)) == []
    assert "distill" in now["constraint"], "a section that the older commit had not"
    assert "distill" not in before["constraint"]


def test_the_records_of_an_older_commit_are_cut_where_its_checkpoint_was_made(
    tmp_path: Path,
) -> None:
    for name, left in (("metrics.jsonl", 1), ("episodes.jsonl", 6)):
        path = Path(shutil.copy(OLDER_RUN / name, tmp_path))
        drop_after(path, 1)
        lines = (OLDER_RUN / name).read_text().splitlines()
        assert path.read_text().splitlines() == lines[:left]

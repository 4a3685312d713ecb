"""Committed experiments on the CPU: the same files with hardware=cpu_debug and tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from recipe.cpu import environment
from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.tiny_model import ensure_checkpoint

pytestmark = pytest.mark.timeout(600)

TINY = (
    "data.max_prompt_length=64",
    "data.max_response_length=64",
    "data.train_batch_size=8",
    "data.val_max_samples=4",
    "data.filter_overlong_prompts_workers=1",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.optim.lr=1e-4",
    "refiner.template=micro-v1",
    "refiner.max_prompt_length=176",
    "trainer.total_training_steps=2",
    "trainer.save_freq=-1",
)


@pytest.mark.parametrize(("experiment", "logged"), [("ppo_apps_dynamic", "constraint/lambda")])
def test_an_experiment_trains_the_tiny_model(
    experiment: str, logged: str, tmp_path: Path, training: Callable[..., Any]
) -> None:
    train_file, val_file = prepare_micro_apps(tmp_path / "data", 64, 16)
    run = training(
        f"experiment={experiment}",
        *TINY,
        f"data.train_files={train_file}",
        f"data.val_files={val_file}",
        f"actor_rollout_ref.model.path={ensure_checkpoint()}",
    )
    run.start()
    run.finish()
    metrics = run.metrics()
    assert sorted(metrics)[-1] == 2
    assert "critic/score/mean" in metrics[2]
    assert logged in metrics[2]


def test_verl_accepts_every_experiment() -> None:
    """For GPUs, with Megatron and reward models: verl's validation reads the config alone."""
    found = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "validate_experiments.py")],
        env=os.environ | environment(),
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    lines = [line.split(maxsplit=2) for line in found.stdout.splitlines()]
    said = {line[1]: line[2:] for line in lines if line[:1] == ["experiment"]}
    folder = resources.files("recipe.online_refiner") / "config" / "experiment"
    assert set(said) == {Path(str(file)).stem for file in folder.iterdir() if file.is_file()}
    assert {name: words for name, words in said.items() if words} == {}

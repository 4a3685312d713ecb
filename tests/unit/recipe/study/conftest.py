"""A small study, and run folders as its trainings would leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.study.plan import Study, study_of

METRIC = "val-core/micro_apps/reward/mean@1"


def content(**changes: Any) -> dict[str, Any]:
    """The content of a study's file."""
    return {
        "name": "small",
        "question": "Which arm ends higher?",
        "setting": "stress",
        "base": ["hardware=cpu_debug", "experiment=quickstart_stress"],
        "data": {"micro_apps": {"train": 8, "test": 4}},
        "steps": 2,
        "seeds": [0, 1],
        "arms": {
            "none": {"overrides": ["constraint.kind=none"]},
            "dynamic_sft": {"overrides": ["constraint.kind=dynamic"], "seeds": [1, 2]},
        },
        "families": {"primary": [["dynamic_sft", "none"]]},
        "panels": {"Entropy": "monitor/entropy"},
        **changes,
    }


@pytest.fixture
def study() -> Study:
    return study_of(content(), "small.yaml")


def _write_run(
    runs: Path,
    arm: str,
    seed: int,
    ends: float,
    steps: int = 2,
    verdicts: tuple[str, ...] = (),
    seconds: float | None = None,
) -> Path:
    """A run whose outcome goes from 0.5 at step 0 to `ends` at its last step.

    Each step takes `seconds`, if given.
    """
    folder = runs / arm / f"seed{seed}"
    folder.mkdir(parents=True)
    values = [0.5, *([0.0] * (steps - 1)), ends]
    lines: list[dict[str, Any]] = [
        {"step": step, "data": {METRIC: value, "monitor/entropy": 1.0 + step}}
        for step, value in enumerate(values)
    ]
    for line in lines[1:] if seconds is not None else []:
        line["data"]["timing_s/step"] = seconds
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    info = {"arm": arm, "seed": seed, "setting": "stress", "total_steps": 2}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "config.yaml").write_text(f"run:\n  dir: {folder}\n")
    (folder / "episodes.jsonl").write_text("".join(f'{{"step": {i}}}\n' for i in range(200)))
    if verdicts:
        dumps = folder / "validation"
        dumps.mkdir()
        rows = [{"verdict": verdict, "output": "x"} for verdict in verdicts]
        (dumps / "2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def write_run() -> Callable[..., Path]:
    return _write_run


@pytest.fixture
def content_of() -> Callable[..., dict[str, Any]]:
    return content

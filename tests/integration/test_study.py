"""A study of two arms on the real stack, both trained at once, and what a second call does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipe.study.plan import read_study
from recipe.study.results import read_results
from recipe.study.trainings import RUNS_FOLDER

LIMIT_S = 600
STUDY = """
name: two_arms
question: Do both arms come to their end?
setting: stress
base:
  - hardware=cpu_debug
  - experiment=quickstart_stress
  - trainer.save_freq=-1
  - trainer.val_before_train=false
  - data.train_batch_size=4
  - actor_rollout_ref.rollout.n=4
data: {micro_apps: {train: 8, test: 8}}
steps: 2
seeds: [0]
attempts: 1
arms:
  none: {overrides: [constraint.kind=none]}
  exchanged: {overrides: ["constraint.kind=recipe.study.placebos:Exchanged", constraint.inject=sft]}
families: {targets: [[exchanged, none]]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study's file, where it has been run."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "two_arms.yaml").write_text(STUDY)
    result = call(folder, "--jobs", "2")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    return folder


def call(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recipe.study", str(folder / "two_arms.yaml")]
    return subprocess.run(
        [*command, "--out", str(folder / "out"), *options],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def last_metrics(folder: Path, arm: str) -> dict[str, Any]:
    lines = (folder / "out" / RUNS_FOLDER / arm / "seed0" / "metrics.jsonl").read_text()
    data: dict[str, Any] = json.loads(lines.splitlines()[-1])["data"]
    return data


def test_both_arms_are_validated_and_each_generates_with_its_own_weights(folder: Path) -> None:
    results = read_results(read_study(folder / "two_arms.yaml"), folder / "out" / RUNS_FOLDER)
    assert sorted(results.runs) == ["exchanged", "none"]
    for arm in results.runs:
        assert sum(results.verdict_shares(arm, 2).values()) == pytest.approx(1.0)
        assert last_metrics(folder, arm)["monitor/rollout_logprob_diff_max"] < 1e-3


def test_the_control_is_a_supervised_term_of_the_loss(folder: Path) -> None:
    assert last_metrics(folder, "exchanged")["actor/sft_loss"] > 0
    assert "actor/sft_loss" not in last_metrics(folder, "none")


def test_a_second_call_trains_nothing_and_reports(folder: Path) -> None:
    def written() -> dict[Path, int]:
        runs = folder / "out" / RUNS_FOLDER
        return {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}

    before = written()
    result = call(folder)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "two_arms: 2 done" in result.stdout
    assert written() == before
    assert (folder / "out" / "report" / "results.md").exists()

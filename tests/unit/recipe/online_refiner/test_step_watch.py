"""A step that takes ten times the median is a hang; a slow validation is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.online_refiner.run.step_watch import EXIT_HUNG, Limits, StepWatch, durations, main


@pytest.mark.parametrize(
    ("durations_s", "expected"),
    [
        ([], None),
        ([5.0, 5.0], None),
        ([100.0, 100.0, 100.0], 1000.0),
        ([500.0, 100.0, 90.0, 110.0], 1050.0),  # the median of four is 105
        ([100.0, 100.0, 900.0], 1800.0),  # twice the longest
        ([1.0, 1.0, 1.0], 600.0),  # the floor
    ],
)
def test_a_step_may_take_ten_times_the_median(
    durations_s: list[float], expected: float | None
) -> None:
    assert Limits().step_s(durations_s) == expected


def test_the_time_runs_from_the_last_step_that_was_recorded() -> None:
    watch = StepWatch(Limits(factor=10, floor_s=0))
    steps = [2.0, 2.0, 2.0]
    assert watch.look(steps, now_s=100.0) is None
    assert watch.look(steps, now_s=120.0) is None
    found = watch.look(steps, now_s=121.0)
    assert found is not None
    assert "step 4 of this file has gone on for 21 s, and may take 20 s" in found
    assert "the median of 3 steps is 2.0 s" in found
    steps.append(2.0)
    assert watch.look(steps, now_s=121.0) is None
    assert watch.look(steps, now_s=141.0) is None
    assert watch.look(steps, now_s=142.0) is not None


def test_a_start_is_never_a_hang() -> None:
    watch = StepWatch(Limits(factor=10, floor_s=0))
    assert watch.look([], now_s=0.0) is None
    assert watch.look([], now_s=1e6) is None
    assert watch.look([50.0, 1.0], now_s=2e6) is None
    assert watch.look([50.0, 1.0], now_s=3e6) is None


def test_a_resumed_run_whose_file_was_cut_begins_anew() -> None:
    watch = StepWatch(Limits(factor=10, floor_s=0))
    assert watch.look([1.0] * 8, now_s=0.0) is None
    assert watch.look([1.0] * 5, now_s=100.0) is None
    assert watch.look([1.0] * 5, now_s=109.0) is None


def test_a_steps_validation_counts_and_a_torn_line_does_not(tmp_path: Path) -> None:
    lines = [
        {"step": 0, "data": {"val-core/reward": 0.1}},
        {"step": 1, "data": {"timing_s/step": 3.0}},
        {"step": 2, "data": {"timing_s/step": 2.0, "timing_s/testing": 5.0}},
    ]
    path = tmp_path / "metrics.jsonl"
    assert durations(path) == []
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "da')
    assert durations(path) == [3.0, 7.0]


def test_the_command_ends_with_its_own_status_once_a_step_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"step": n, "data": {"timing_s/step": 0.001}} for n in range(4)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(tmp_path), "--floor-s", "0.05", "--every-s", "0.01"]) == EXIT_HUNG
    assert capsys.readouterr().out.startswith("a step hangs: step 5 of this file")

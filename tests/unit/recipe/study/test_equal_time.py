"""Arms at the same training time, by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recipe.study.equal_time import clocked_runs, compare_times, equal_time_table
from recipe.study.plan import Study, study_of
from recipe.study.results import read_results

WriteRun = Callable[..., Path]


def test_the_slower_arm_is_read_when_the_faster_one_ends(
    study: Study, tmp_path: Path, write_run: WriteRun
) -> None:
    """None takes 10 s; after 10 s the slower arm is a quarter of the way from step 1 to step 2."""
    write_run(tmp_path, "none", 1, 0.1, seconds=5)
    write_run(tmp_path, "dynamic_sft", 1, 0.8, seconds=8)
    (one,) = compare_times(read_results(study, tmp_path))
    assert (one.first_step_seconds, one.second_step_seconds, one.seconds) == (8, 5, 10)
    assert one.result.mean == pytest.approx(0.8 * 2 / 8 - 0.1)
    (row,) = equal_time_table([one]).rows
    assert row == ("dynamic (sft) − none", "1", "8.00", "5.00", "10", "+0.10", "-")


def test_each_pair_ends_at_its_own_time_and_either_arm_may_be_the_faster(
    study: Study, tmp_path: Path, write_run: WriteRun
) -> None:
    arms: dict[str, dict[str, object]] = {"none": {}, "dynamic_sft": {}}
    write_run(tmp_path, "none", 0, 0.2, seconds=4)
    write_run(tmp_path, "none", 1, 0.2, seconds=2)
    write_run(tmp_path, "dynamic_sft", 0, 0.6, seconds=3)
    write_run(tmp_path, "dynamic_sft", 1, 0.6, seconds=4)
    families = {"a": [["dynamic_sft", "none"]], "again": [["dynamic_sft", "none"]]}
    changed = study_of(study.model_dump() | {"arms": arms, "families": families}, "x")
    (one,) = compare_times(read_results(changed, tmp_path))
    # Seed 0 ends after 6 s, when none is halfway through its second step; seed 1 after 4 s.
    assert one.result.differences == pytest.approx((0.6 - 0.1, 0.0 - 0.2))
    assert one.seconds == pytest.approx(5)
    (row,) = equal_time_table([one]).rows
    assert row[5] == "+0.15"
    assert " to " in row[6]


def test_runs_without_seconds_of_every_step_are_left_out(
    study: Study, tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, "none", 1, 0.1, seconds=5)
    folder = write_run(tmp_path, "dynamic_sft", 1, 0.8)
    results = read_results(study, tmp_path)
    assert clocked_runs(results, "dynamic_sft") == {}
    assert compare_times(results) == []
    first, second, third = (folder / "metrics.jsonl").read_text().splitlines()
    with_one = third.replace('"data": {', '"data": {"timing_s/step": 3, ')
    (folder / "metrics.jsonl").write_text("\n".join([first, second, with_one, ""]))
    assert clocked_runs(read_results(study, tmp_path), "dynamic_sft") == {}

"""The phases of a start as run.json has them."""

import json
import time
from pathlib import Path

import pytest

from recipe.online_refiner.run.start_times import (
    Phase,
    StartClock,
    add_phases,
    process_started,
)


def test_phases_follow_one_another_from_the_start_of_the_process() -> None:
    clock = StartClock("driver")
    clock.lap("imports")
    clock.lap("checks")
    clock.add("server", "start", 1.0, 2.0)
    imports, checks, server = clock.phases
    assert imports.started == pytest.approx(process_started(), abs=0.1)
    assert imports.started < imports.ended == checks.started
    assert server == Phase("server", "start", 1.0, 2.0)
    assert [phase.process for phase in (imports, checks)] == ["driver", "driver"]


def test_a_process_has_started_before_now_and_after_its_machine() -> None:
    uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert time.time() - uptime_s < process_started() < time.time()


def test_run_json_counts_all_phases_from_the_first_of_the_driver(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"arm": "none"}))
    add_phases(tmp_path, [Phase("driver", "imports", 100.0, 104.5)])
    later = [Phase("trainer", "actor", 105.0, 110.25), Phase("trainer", "first step", 110.25, 112)]
    add_phases(tmp_path, later, first_step=True)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["arm"] == "none"
    assert content["timing"]["first_step_s"] == 12.0
    assert [
        (one["process"], one["phase"], one["start_s"], one["end_s"])
        for one in content["timing"]["phases"]
    ] == [
        ("driver", "imports", 0.0, 4.5),
        ("trainer", "actor", 5.0, 10.25),
        ("trainer", "first step", 10.25, 12.0),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]

"""The waterfall of a start, from run.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipe.analysis.runs import load_runs
from recipe.analysis.start import Phase, phases_of, start_sheet

TIMING = {
    "zero": 1.0,
    "first_step_s": 9.0,
    "phases": [
        {"process": "driver", "phase": "imports", "start_s": 0.0, "end_s": 2.5},
        {"process": "trainer", "phase": "first step", "start_s": 4.0, "end_s": 9.0},
    ],
}


def test_phases_are_read_as_they_were_recorded() -> None:
    assert phases_of({"timing": TIMING}) == [
        Phase("driver", "imports", 0.0, 2.5),
        Phase("trainer", "first step", 4.0, 9.0),
    ]


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"timing": None},
        {"timing": {"phases": "none"}},
        {"timing": {"phases": [7, {"process": "driver"}]}},
        {"timing": {"phases": [{"process": "a", "phase": "b", "start_s": 3, "end_s": 1}]}},
    ],
)
def test_what_cannot_be_read_is_left_out(info: dict[str, Any]) -> None:
    assert phases_of(info) == []


def test_each_process_has_a_row_and_each_phase_a_colour(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"arm": "none", "seed": 0, "timing": TIMING}))
    record = {"step": 1, "data": {"critic/score/mean": 0.5}}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    sheet = start_sheet(load_runs([folder]).runs)
    assert sheet is not None
    assert [key.label for key in sheet.keys] == ["imports", "first step"]
    assert sheet.rows == (
        ("none", 0, "driver", "imports", 0.0, 2.5),
        ("none", 0, "trainer", "first step", 4.0, 9.0),
    )
    assert "trainer, first step: 4.0 to 9.0 s" in sheet.plots[0].alt


def test_without_records_there_is_no_figure() -> None:
    assert start_sheet([]) is None

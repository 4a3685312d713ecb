"""Records of a run that is interrupted and resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from recipe.online_refiner.run.metrics_log import RecordedTracking, drop_after


class Backend:
    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, Any], int]] = []

    def log(self, data: dict[str, Any], step: int) -> None:
        self.logged.append((data, step))

    def finish(self, exit_code: int) -> int:
        return exit_code


def test_records_go_to_the_backend_and_to_the_file_and_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "data": {}}\n')
    backend = Backend()
    RecordedTracking(backend, path).log({"a": np.float32(0.5)}, step=1)
    assert backend.logged == [({"a": np.float32(0.5)}, 1)]
    assert json.loads(path.read_text().splitlines()[1]) == {"step": 1, "data": {"a": 0.5}}


def test_other_calls_reach_the_backend(tmp_path: Path) -> None:
    assert RecordedTracking(Backend(), tmp_path / "metrics.jsonl").finish(exit_code=3) == 3


def test_resuming_drops_what_is_trained_again_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    drop_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_last_record_that_lacks_only_its_line_feed_stays(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    drop_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert [one.name for one in tmp_path.iterdir()] == ["rollouts.jsonl"]


def test_a_run_without_records_has_nothing_to_drop(tmp_path: Path) -> None:
    drop_after(tmp_path / "metrics.jsonl", 2)
    assert list(tmp_path.iterdir()) == []

"""The live mode renders until all is done, waits for what may follow, and ends still."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.analysis.live import has_finished, keep_rendering
from recipe.analysis.runs import Run, RunSet, load_run


def at_step(step: int) -> Run:
    return Run(Path("r"), "none", 0, "", 2, {}, tuple(range(1, step + 1)), {}, (), ())


class Watcher:
    """Plays the folder, the page and the clock; Ctrl-C comes after `patience` waits."""

    def __init__(self, *states: RunSet, patience: int = 99) -> None:
        self.states: Iterator[RunSet] = iter(states)
        self.patience = patience
        self.shown: list[tuple[int, bool]] = []
        self.state = RunSet((), ())

    def load(self) -> RunSet:
        self.state = next(self.states, self.state)
        return self.state

    def show(self, found: RunSet, last: bool) -> bool:
        self.shown.append((sum(len(run.steps) for run in found.runs), last))
        return bool(found.runs)

    def wait(self, seconds: float) -> None:
        assert seconds == 10
        self.patience -= 1
        if self.patience < 0:
            raise KeyboardInterrupt

    def watch(self, linger_s: float) -> int:
        return keep_rendering(self.load, self.show, 10, linger_s, self.wait)


def found(*steps: int) -> RunSet:
    return RunSet(tuple(map(at_step, steps)), ())


def test_it_ends_when_every_run_has_finished_and_the_last_page_is_still() -> None:
    watcher = Watcher(found(), found(1), found(2, 1), found(2, 2))
    assert watcher.watch(linger_s=0) == 0
    assert watcher.shown == [(0, False), (1, False), (3, False), (4, False), (4, True)]


def test_a_run_that_begins_after_the_others_finished_is_waited_for() -> None:
    watcher = Watcher(found(2), found(2), found(2, 1), found(2, 2))
    assert watcher.watch(linger_s=30) == 0
    assert watcher.shown[2] == (3, False)
    assert watcher.shown[-1] == (4, True) and len(watcher.shown) == 7


def test_ctrl_c_leaves_a_still_page_of_what_there_is() -> None:
    watcher = Watcher(found(1), patience=1)
    assert watcher.watch(linger_s=0) == 0
    assert watcher.shown == [(1, False), (1, False), (1, True)]


def test_without_a_run_until_ctrl_c_the_status_is_1() -> None:
    assert Watcher(found(), patience=0).watch(linger_s=0) == 1


@pytest.mark.parametrize(
    ("info", "steps", "finished"),
    [
        ({"total_steps": 2}, 2, True),
        ({"total_steps": 2}, 1, False),
        ({"total_steps": None}, 2, False),
        ({"finished_at": "2026-01-01T00:00:00+00:00"}, 1, True),
    ],
)
def test_a_run_has_finished_at_its_last_step_or_by_its_word(
    tmp_path: Path, info: dict[str, object], steps: int, finished: bool
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(info))
    lines = (json.dumps({"step": step, "data": {}}) for step in range(1, steps + 1))
    (tmp_path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    assert has_finished(load_run(tmp_path)) is finished

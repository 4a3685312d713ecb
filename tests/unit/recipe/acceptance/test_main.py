"""The parts of a trial, whatever becomes of one of them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from recipe.acceptance.machine import found
from recipe.acceptance.main import Trial, _checks, main
from recipe.acceptance.results import Check, Status

PASSED = Check("steps", Status.PASS, "4 of 4", "4")


class Parts(Trial):
    """A trial whose parts do nothing, or fail."""

    def __init__(self, folder: Path, prepares: bool) -> None:
        super().__init__(found("cpu"), True, folder, 60.0)
        self._prepares = prepares

    def prepare(self) -> None:
        if not self._prepares:
            raise OSError("disk full")

    def decode(self) -> list[Check]:
        raise MemoryError("no room")

    def train(self) -> list[Check]:
        return [PASSED]


def test_a_part_that_fails_does_not_hide_the_next(tmp_path: Path) -> None:
    failed, passed = _checks(Parts(tmp_path, True), ("decoding", "training"))
    assert (failed.name, failed.status, failed.figure) == (
        "decoding",
        Status.FAIL,
        "MemoryError: no room",
    )
    assert passed == PASSED
    assert _checks(Parts(tmp_path, True), ("training",)) == [PASSED]


def test_without_a_model_nothing_is_tried(tmp_path: Path) -> None:
    (failed,) = _checks(Parts(tmp_path, False), ("decoding", "training"))
    assert failed.figure == "OSError: disk full"


@pytest.mark.parametrize(
    ("code", "limit_s", "words"),
    [
        ("print('fine')", 60.0, ""),
        ("raise ValueError('broken')", 60.0, "ValueError: broken; the whole log is"),
        ("import time; time.sleep(60)", 1.0, "not at its end"),
    ],
)
def test_a_command_that_does_not_end_well_is_said_why(
    code: str, limit_s: float, words: str, tmp_path: Path
) -> None:
    trial: Any = Trial(found("cpu"), True, tmp_path, limit_s)
    failure = trial._run([sys.executable, "-c", code], tmp_path / "log")
    assert words in failure and bool(words) == bool(failure)


def test_a_gpu_that_is_asked_for_and_not_there_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--device", "cuda", "--out", str(tmp_path / "out")]) == 2
    assert "nvidia-smi does not answer" in capsys.readouterr().err

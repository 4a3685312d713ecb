"""A file that grows is read on from where it ended, and gives what reading it whole would."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.analysis.digest_reader import DigestReader
from recipe.analysis.runs import Loader

MakeEpisode = Callable[..., dict[str, Any]]


@pytest.fixture
def lines(new_episode: MakeEpisode) -> list[bytes]:
    """Five episodes of steps 1 to 5, each with an id of its own."""
    records = (new_episode(step, uid=str(step)) for step in range(1, 6))
    return [json.dumps(record).encode() + b"\n" for record in records]


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_every_stage_of_growth_reads_as_the_whole_file_does(
    tmp_path: Path, lines: list[bytes]
) -> None:
    path = tmp_path / "episodes.jsonl"
    half = len(lines[2]) // 2
    reader = DigestReader()
    for piece in (lines[0], lines[1] + lines[2][:half], lines[2][half:], b"\nbroken\n", lines[3]):
        append(path, piece)
        assert reader.read(path) == DigestReader().read(path)
    assert [item.step for item in reader.read(path)[0]] == [1, 2, 3, 4]
    assert [finding.message for finding in reader.read(path)[1]] == [
        "line 5: not a JSON object; ignored"
    ]


def test_what_was_read_is_not_parsed_again(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "episodes.jsonl"
    append(path, lines[0] + lines[1])
    reader = DigestReader()
    first = reader.read(path)[0]
    append(path, lines[2])
    second = reader.read(path)[0]
    assert second[0] is first[0] and second[1] is first[1] and len(second) == 3


def test_a_last_line_without_its_line_feed_counts_and_is_read_again(
    tmp_path: Path, lines: list[bytes]
) -> None:
    path = tmp_path / "episodes.jsonl"
    append(path, lines[0] + lines[1].rstrip())
    reader = DigestReader()
    assert [item.step for item in reader.read(path)[0]] == [1, 2]
    append(path, b"\n" + lines[2])
    assert [item.step for item in reader.read(path)[0]] == [1, 2, 3]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_file_that_a_resumed_run_rewrote_is_read_from_its_beginning(
    tmp_path: Path, lines: list[bytes], new_episode: MakeEpisode, kept: int
) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(b"".join(lines[:3]))
    reader = DigestReader()
    reader.read(path)
    again = json.dumps(new_episode(kept + 1, uid="again")).encode() + b"\n"
    path.write_bytes(b"".join(lines[:kept]) + again * (4 - kept))
    assert reader.read(path) == DigestReader().read(path)
    assert len(reader.read(path)[0]) == 4


def test_a_file_that_vanishes_and_comes_back_is_followed(
    tmp_path: Path, lines: list[bytes]
) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(lines[0])
    reader = DigestReader()
    reader.read(path)
    path.unlink()
    assert reader.read(path)[0] == ()
    path.write_bytes(lines[1])
    assert [item.step for item in reader.read(path)[0]] == [2]


def test_runs_that_begin_later_are_found(tmp_path: Path, lines: list[bytes]) -> None:
    loader = Loader([tmp_path])
    assert loader.load().runs == ()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "episodes.jsonl").write_bytes(lines[0])
    assert [len(run.episodes) for run in loader.load().runs] == [1]

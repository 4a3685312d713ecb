"""The viewer's index: what it holds of a run's files, in whatever state they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.analysis.viewer.index import RunIndex
from recipe.analysis.viewer.library import Library
from recipe.analysis.viewer.rows import Source, read_row

MakeEpisode = Callable[..., dict[str, Any]]


def line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    (tmp_path / "run").mkdir()
    (tmp_path / "cache").mkdir()
    return RunIndex(tmp_path / "run", tmp_path / "cache")


def steps_in(index: RunIndex) -> list[int]:
    return [row["step"] for row in index.query("SELECT step FROM episodes ORDER BY id")]


def test_a_row_holds_the_numbers_of_its_line_worked_out_by_hand(new_episode: MakeEpisode) -> None:
    record = new_episode(
        answer_tokens=["a", "b", "c"],
        refined_tokens=["a", "x", "c", "d"],
        copied=[1, 0, 1, 0],
        ce=[0.0, 2.0, 0.5, 1.5],
        reward=-0.25,
        refined_reward=1.0,
    )
    found = read_row(record, Source.EPISODES, 77)
    assert found is not None
    row, texts = found
    assert (row.gain, row.edits, row.length, row.refined_length, row.ce) == (1.25, 2, 3, 4, 1.0)
    assert (row.outcome, row.accepted, row.offset) == ("improved", 1, 77)
    assert texts.answer == record["answer"]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"verbatim": True}, "verbatim"),
        ({"refined_reward": None}, "failed"),
        ({"refined_reward": -0.3}, "not_improved"),
    ],
)
def test_the_outcome_is_that_of_the_report(
    new_episode: MakeEpisode, changes: dict[str, Any], outcome: str
) -> None:
    found = read_row(new_episode(**changes), Source.EPISODES, 0)
    assert found is not None and found[0].outcome == outcome


@pytest.mark.parametrize("ce", [None, [], ["x"], [float("nan")], [1e300], "long", [True]])
def test_what_is_no_number_stays_absent(new_episode: MakeEpisode, ce: Any) -> None:
    found = read_row(new_episode(ce=ce, reward="high", answer_tokens=None), Source.EPISODES, 0)
    assert found is not None
    row = found[0]
    assert (row.ce, row.reward, row.gain, row.length, row.edits) == (None,) * 5


def test_a_growing_file_is_read_on_and_a_line_that_is_not_whole_waits(
    index: RunIndex, new_episode: MakeEpisode
) -> None:
    file = index.run / "episodes.jsonl"
    whole = line(new_episode(step=1))
    torn = line(new_episode(step=2))
    file.write_text(whole + torn[:40])
    assert index.update() == 1 and steps_in(index) == [1]
    assert index.state().behind_bytes == 40
    file.write_text(whole + torn + whole.replace('"step": 1', '"step": 3'))
    assert index.update() == 2 and steps_in(index) == [1, 2, 3]
    assert index.update() == 0 and index.state().behind_bytes == 0


def test_steps_that_a_resume_wrote_again_replace_the_earlier_ones(
    index: RunIndex, new_episode: MakeEpisode
) -> None:
    file = index.run / "episodes.jsonl"
    file.write_text("".join(line(new_episode(step=step)) for step in (1, 2, 3)))
    index.update()
    with file.open("a") as added:
        added.write("".join(line(new_episode(step=step, answer="again")) for step in (2, 3)))
    index.update()
    assert steps_in(index) == [1, 2, 3]
    matches = index.query(
        "SELECT step FROM episodes WHERE id IN (SELECT rowid FROM words WHERE words MATCH 'again')"
    )
    assert [row["step"] for row in matches] == [2, 3]


def test_a_file_that_was_rewritten_is_read_anew(index: RunIndex, new_episode: MakeEpisode) -> None:
    file = index.run / "episodes.jsonl"
    file.write_text("".join(line(new_episode(step=step)) for step in (1, 2)))
    index.update()
    file.write_text(line(new_episode(step=7, uid="other")))
    index.update()
    assert steps_in(index) == [7]


def test_an_index_is_kept_for_the_next_time(index: RunIndex, new_episode: MakeEpisode) -> None:
    (index.run / "episodes.jsonl").write_text(line(new_episode()))
    index.update()
    again = RunIndex(index.run, index.database.parent)
    assert again.update() == 0 and steps_in(again) == [1]


def test_a_broken_database_is_made_anew(index: RunIndex, new_episode: MakeEpisode) -> None:
    (index.run / "episodes.jsonl").write_text(line(new_episode()))
    index.database.write_bytes(b"no database" * 1000)
    again = RunIndex(index.run, index.database.parent)
    again.update()
    assert steps_in(again) == [1]


def test_broken_lines_are_counted_and_named(index: RunIndex, new_episode: MakeEpisode) -> None:
    (index.run / "episodes.jsonl").write_text("[1]\n{}\n{]\n" + line(new_episode()))
    index.update()
    assert steps_in(index) == [1]
    assert index.problems() == [
        "episodes.jsonl, 2 lines from line 1: not a JSON object; ignored",
        "episodes.jsonl, 1 line from line 2: without a step; ignored",
    ]


def test_rollouts_that_were_not_refined_stand_beside_the_others(
    index: RunIndex, new_episode: MakeEpisode
) -> None:
    (index.run / "episodes.jsonl").write_text(line(new_episode(uid="p")))
    rollout = {"step": 1, "uid": "p", "answer": "x", "outcome": "skipped_perfect", "reward": 1.0}
    (index.run / "rollouts.jsonl").write_text(line(rollout))
    index.update()
    rows = index.query("SELECT * FROM episodes ORDER BY source")
    assert [row["outcome"] for row in rows] == ["improved", "skipped_perfect"]
    assert rows[1]["accepted"] is None and rows[1]["edits"] is None


def test_an_update_reads_no_more_lines_than_it_is_given(
    index: RunIndex, new_episode: MakeEpisode
) -> None:
    """So that the reader's pages are not kept waiting, and memory does not grow with the file."""
    text = "".join(line(new_episode(step=step)) for step in range(1, 8))
    (index.run / "episodes.jsonl").write_text(text)
    assert [index.update(3) for _ in range(4)] == [3, 3, 1, 0]
    assert steps_in(index) == list(range(1, 8))


def test_runs_are_named_by_their_place_and_new_ones_are_found(tmp_path: Path) -> None:
    root, cache = tmp_path / "stress", tmp_path / "cache"
    cache.mkdir()
    for arm in ("none", "<b>"):
        (root / arm / "seed0").mkdir(parents=True)
        (root / arm / "seed0" / "run.json").write_text("{}")
    library = Library([root, root / "none" / "seed0"], cache)
    library.find()
    assert sorted(library.names) == ["stress/<b>/seed0", "stress/none/seed0"]
    (root / "later").mkdir()
    (root / "later" / "metrics.jsonl").write_text("")
    library.find()
    assert "stress/later" in library


def test_runs_with_one_name_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for parent in ("x", "y"):
        (tmp_path / parent / "a" / "b" / "c").mkdir(parents=True)
        (tmp_path / parent / "a" / "b" / "c" / "run.json").write_text("{}")
    library = Library([tmp_path / p / "a" / "b" / "c" for p in ("x", "y")], tmp_path / "cache")
    library.find()
    assert library.names == ["a/b/c", "a/b/c~2"]


def test_two_viewers_of_one_run_write_each_rollout_once(
    index: RunIndex, new_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = index.run / "episodes.jsonl"
    file.write_text(line(new_episode(step=1)) + line(new_episode(step=2)))
    other = RunIndex(index.run, index.database.parent)
    write = index._write

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.undo()
        other.update()
        return write(*arguments)

    monkeypatch.setattr(index, "_write", overtaken)
    index.update()
    assert steps_in(index) == [1, 2]
    assert index.update() == 0 and steps_in(other) == [1, 2]


@pytest.mark.parametrize("content", [None, b"no database" * 100])
def test_an_index_that_is_deleted_or_broken_while_it_is_used_is_made_anew(
    index: RunIndex, new_episode: MakeEpisode, content: bytes | None
) -> None:
    file = index.run / "episodes.jsonl"
    file.write_text(line(new_episode(step=1)))
    index.update()
    for path in index.database.parent.iterdir():
        path.unlink()
    if content is not None:
        index.database.write_bytes(content)
    index.update()
    index.update()
    assert steps_in(index) == [1]

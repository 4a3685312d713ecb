"""Preparing data as an operator does: again into the same folder, wrongly, in a log, in a hurry."""

from __future__ import annotations

import io
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recipe.data import prepare_apps, prepare_prompt_collection
from recipe.data.apps import Limits, PrepareOptions, prepare
from recipe.data.arguments import MOST_WORKERS, default_workers
from recipe.data.files import GROUP_ROWS, OutputError, RowFile
from recipe.data.progress import counted
from recipe.data.rows import row_schema
from recipe.data.solution_check import AHEAD, CACHE_FILE, in_order
from recipe.data.sources import SourceError

GOOD = "print(int(input()) + 1)"


def problem(number: int) -> dict[str, Any]:
    return {
        "problem_id": f"{number:04d}",
        "question": f"Print the number after the one given. {number}",
        "input_output": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]}),
        "solutions": json.dumps([GOOD]),
    }


def conversation(number: int) -> dict[str, Any]:
    return {"context_messages": [{"role": "user", "content": f"Hello {number}"}], "id": number}


def write_lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return str(path)


def quarantine(out: Path) -> list[tuple[str, str]]:
    lines = (out / "quarantine.jsonl").read_text().splitlines()
    return [(entry["split"], entry["problem_id"]) for entry in map(json.loads, lines)]


@pytest.fixture
def both_splits(tmp_path: Path) -> str:
    """Train with the records 0 to 5, test with 10 to 13; of each the first two are unusable."""
    for split, numbers in {"train": range(6), "test": range(10, 14)}.items():
        records = [problem(number) for number in numbers]
        for broken in records[:2]:
            broken["input_output"] = "{}"
        write_lines(tmp_path / "in" / f"{split}.jsonl", records)
    return str(tmp_path / "in")


def test_a_split_prepared_later_leaves_the_earlier_ones_on_record(
    both_splits: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    train = prepare(both_splits, out, ("train",))
    test = prepare(both_splits, out, ("test",))
    of_train, of_test = [("train", "0000"), ("train", "0001")], [("test", "0010"), ("test", "0011")]
    assert quarantine(out) == of_train + of_test
    assert json.loads((out / "data_card.json").read_text()) == train | test
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    prepare(both_splits, out, ("train",))
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before


def test_both_splits_at_once_give_the_same_files_as_one_after_the_other(
    both_splits: str, tmp_path: Path
) -> None:
    prepare(both_splits, tmp_path / "at_once", ("train", "test"))
    for split in ("train", "test"):
        prepare(both_splits, tmp_path / "apart", (split,))
    at_once, apart = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("at_once", "apart")
    )
    assert at_once == apart


def test_what_changed_in_a_split_replaces_its_own_entries_only(
    both_splits: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare(both_splits, out, ("train", "test"))
    write_lines(Path(both_splits) / "train.jsonl", [problem(0), {"problem_id": "new"}])
    prepare(both_splits, out, ("train",))
    assert quarantine(out) == [("train", "new"), ("test", "0010"), ("test", "0011")]
    card = json.loads((out / "data_card.json").read_text())
    assert (card["train"]["rows"], card["test"]["rows"]) == (1, 2)
    (out / "test.parquet").unlink()
    prepare(both_splits, out, ("train",))
    assert quarantine(out) == [("train", "new")]
    assert list(json.loads((out / "data_card.json").read_text())) == ["train"]


def test_a_split_is_written_before_the_next_one_is_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "train.jsonl", [problem(0)])
    write_lines(tmp_path / "in" / "test.jsonl", [{"question": "?"}])
    with pytest.raises(SourceError, match="split 'test' has no usable record"):
        prepare(str(tmp_path / "in"), tmp_path / "out", ("train", "test"))
    assert pq.read_table(tmp_path / "out" / "train.parquet").num_rows == 1
    assert list(json.loads((tmp_path / "out" / "data_card.json").read_text())) == ["train"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "data_card.json", "quarantine.jsonl", "train.parquet",
    ]  # fmt: skip


Main = Callable[[list[str]], int]
APPS, PROMPTS = prepare_apps.main, prepare_prompt_collection.main


@pytest.mark.parametrize(
    ("main", "flag", "values"),
    [
        *[(APPS, flag, ("0", "-1", "x")) for flag in ("--max-rows", "--workers")],
        *[(APPS, flag, ("0", "-1")) for flag in ("--max-solutions", "--compare-solutions")],
        *[(APPS, f"--{name.replace('_', '-')}", ("0", "-1")) for name in vars(Limits())],
        (APPS, "--timeout-s", ("0", "-1", "nan", "inf", "x")),
        (PROMPTS, "--validation-rows", ("-1", "x")),
        *[(PROMPTS, flag, ("0", "-1")) for flag in ("--max-records", "--max-turns")],
        (PROMPTS, "--max-conversation-chars", ("0", "-1")),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    main: Main, flag: str, values: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    source = write_lines(tmp_path / "in.jsonl", [problem(0), conversation(1)])
    for value in values:
        with pytest.raises(SystemExit) as refused:
            main(["--source", source, "--out", str(tmp_path / "out"), flag, value])
        assert refused.value.code == 2
        assert f"argument {flag}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("main", "record"), [(APPS, problem), (PROMPTS, conversation)])
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(
    main: Main, record: Callable[[int], dict[str, Any]], place: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "file").touch()
    source = write_lines(tmp_path / "in.jsonl", [record(number) for number in range(4)])

    def not_asked(*_: object) -> None:
        raise AssertionError("a record was read")

    monkeypatch.setattr("recipe.data.sources._read_line", not_asked)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith("/proc"))
    assert main(["--source", source, "--out", str(tmp_path / place)]) == 2
    error = capsys.readouterr().err
    assert "--out" in error
    assert "is not a folder" in error or "is not writable" in error


def test_a_full_disk_is_said_and_leaves_no_half_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(tmp_path / "in.jsonl", [problem(0)])

    def full(self: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RowFile, "_flush", full)
    assert APPS(["--source", source, "--out", str(tmp_path / "out"), "--no-check"]) == 2
    assert "prepare_apps: [Errno 28] No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.parquet*"))


@pytest.mark.parametrize(
    ("main", "record", "flags"),
    [(APPS, problem, []), (PROMPTS, conversation, ["--validation-rows", "1"])],
)
def test_a_dry_run_counts_and_writes_nothing(
    main: Main, record: Callable[[int], dict[str, Any]], flags: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = write_lines(tmp_path / "in.jsonl", [*map(record, range(3)), {"id": 3}])
    command = ["--source", source, "--out", str(tmp_path / "out"), *flags, "--dry-run"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "dry run: nothing was written" in said
    assert "train.parquet: " in said
    assert not (tmp_path / "out").exists()


def test_workers_are_few_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(128)))
    assert default_workers() == MOST_WORKERS
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert default_workers() == 1
    parsed = prepare_apps._parser().parse_args(["--source", "a", "--out", "b", "--workers", "5"])
    options = prepare_apps._prepare_options(parsed)
    assert options.check is not None
    assert options.check.judge.worker_count == 5


def test_a_log_has_a_line_every_half_minute_and_one_at_the_end() -> None:
    times = iter([0.0, 10.0, 31.0, 40.0, 70.0, 80.0])
    out = io.StringIO()
    items = counted("abcd", "train", "problem", clock=lambda: next(times), out=out)
    assert list(items) == list("abcd")
    assert out.getvalue().splitlines() == [
        "train: 2 problems in 31 s, 0 a second",
        "train: 4 problems in 70 s, 0 a second",
        "train: 4 problems in 80 s, 0 a second",
    ]


def test_a_short_preparation_says_nothing_meanwhile() -> None:
    out = io.StringIO()
    assert list(counted(range(3), "train", "problem", out=out)) == [0, 1, 2]
    assert out.getvalue() == ""


def test_results_keep_the_order_and_only_a_few_items_are_read_ahead() -> None:
    first_may_end = threading.Event()
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            if number == 2 * AHEAD:
                first_may_end.set()
            yield number

    def square(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(30)
        return number * number

    for taken, (item, result) in enumerate(in_order(square, numbers(), threads=2)):
        assert (item, result) == (taken, taken * taken)
        assert len(read) <= taken + 2 * AHEAD + 2


def peak_bytes(source: str, out: Path) -> int:
    tracemalloc.start()
    try:
        prepare(source, out)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    filler = "x" * 2000
    few, many = (
        write_lines(
            tmp_path / f"{count}.jsonl",
            [problem(n) | {"question": f"{n} {filler}"} for n in range(count)],
        )
        for count in (2 * GROUP_ROWS, 6 * GROUP_ROWS)
    )
    bytes_few, bytes_many = peak_bytes(few, tmp_path / "a"), peak_bytes(many, tmp_path / "b")
    # What is known of each row: its identity, and three numbers of the card.
    assert bytes_many - bytes_few < 4 * GROUP_ROWS * 300
    assert bytes_few > GROUP_ROWS * len(filler)


def test_rows_are_written_in_groups_of_at_most_so_many_and_so_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipe.data.files.GROUP_ROWS", 4)
    monkeypatch.setattr("recipe.data.files.GROUP_CHARS", 100)
    row: dict[str, Any] = {
        "data_source": "a",
        "prompt": [],
        "ability": "code",
        "reward_model": None,
    }
    with RowFile(tmp_path / "a.parquet", row_schema()) as file:
        for chars in (1, 1, 1, 1, 60, 60, 200, 1):
            file.add(row | {"extra_info": None}, chars)
    groups = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [4, 2, 1, 1]


def test_verdicts_of_one_split_are_known_in_another(tmp_path: Path) -> None:
    """Where they are in the file is remembered, not what they were."""
    write_lines(tmp_path / "in" / "train.jsonl", [problem(0), problem(1)])
    write_lines(tmp_path / "in" / "test.jsonl", [problem(2), problem(3)])
    flags = ["--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert APPS([*flags, "--splits", "train", "test"]) == 0
    # All four have the same tests and the same solution.
    assert len((tmp_path / "out" / CACHE_FILE).read_text().splitlines()) == 1


def test_the_options_of_a_library_call_refuse_an_unwritable_folder_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source = write_lines(tmp_path / "in.jsonl", [problem(0)])
    with pytest.raises(OutputError, match="is not a folder"):
        prepare(source, tmp_path / "file", options=PrepareOptions())

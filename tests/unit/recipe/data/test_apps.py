"""Preparation as a whole: every kind of source, nothing lost, nothing changed by a second run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.data.apps import PrepareOptions, SourceError, prepare
from recipe.data.prepare_apps import main

RECORDS: list[dict[str, Any]] = [
    {
        "problem_id": f"{n:04d}",
        "question": f"Print {n} plus the input.",
        "input_output": json.dumps({"inputs": ["1\n"], "outputs": [f"{n + 1}\n"]}),
        "solutions": json.dumps([f"print({n}+int(input()))"]),
        "difficulty": "introductory",
        "url": "",
        "starter_code": "",
    }
    for n in range(4)
]


def write_folders(root: Path, records: list[dict[str, Any]]) -> None:
    for record in records:
        folder = root / record["problem_id"]
        folder.mkdir(parents=True)
        (folder / "question.txt").write_text(record["question"])
        (folder / "input_output.json").write_text(record["input_output"])
        (folder / "solutions.json").write_text(record["solutions"])
        (folder / "metadata.json").write_text(json.dumps({"difficulty": record["difficulty"]}))


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path)


def rows(out: Path, split: str = "train") -> list[dict[str, Any]]:
    return pq.read_table(out / f"{split}.parquet").to_pylist()


def quarantine(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]


def test_every_kind_of_source_gives_the_same_rows(tmp_path: Path) -> None:
    write_folders(tmp_path / "flat", RECORDS)
    write_folders(tmp_path / "split" / "train", RECORDS)
    write_jsonl(tmp_path / "one.jsonl", RECORDS)
    write_jsonl(tmp_path / "lines" / "train.jsonl", RECORDS)
    write_parquet(tmp_path / "one.parquet", RECORDS)
    write_parquet(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", RECORDS[:2])
    write_parquet(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet", RECORDS[2:])
    prepared = []
    for source in ("flat", "split", "one.jsonl", "lines", "one.parquet", "hub"):
        prepare(str(tmp_path / source), tmp_path / "out")
        prepared.append(rows(tmp_path / "out"))
    assert [row["extra_info"]["problem_id"] for row in prepared[0]] == [
        "0000", "0001", "0002", "0003",
    ]  # fmt: skip
    assert all(each == prepared[0] for each in prepared)


def test_splits_come_from_their_own_folders(tmp_path: Path) -> None:
    write_folders(tmp_path / "in" / "train", RECORDS[:3])
    write_folders(tmp_path / "in" / "test", RECORDS[3:])
    card = prepare(str(tmp_path / "in"), tmp_path / "out", ("train", "test"))
    assert (card["train"]["rows"], card["test"]["rows"]) == (3, 1)
    assert rows(tmp_path / "out", "test")[0]["extra_info"]["split"] == "test"


@pytest.mark.parametrize("name", ["in", "in.jsonl"])
def test_one_source_is_never_two_splits(tmp_path: Path, name: str) -> None:
    write_folders(tmp_path / "in", RECORDS)
    write_jsonl(tmp_path / "in.jsonl", RECORDS)
    with pytest.raises(SourceError, match="are the same problems"):
        prepare(str(tmp_path / name), tmp_path / "out", ("train", "test"))


def test_nothing_is_lost_and_every_reason_is_kept(tmp_path: Path) -> None:
    lines = [
        json.dumps(RECORDS[0]),
        "{not json",
        json.dumps(RECORDS[1] | {"input_output": "{}"}),
        json.dumps(["a", "list"]),
        json.dumps(RECORDS[0]),
        "",
        json.dumps(RECORDS[2]),
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    card = prepare(str(tmp_path / "in.jsonl"), tmp_path / "out")["train"]
    assert (card["read"], card["rows"], card["quarantined"]) == (6, 2, 4)
    assert [row["extra_info"]["index"] for row in rows(tmp_path / "out")] == [0, 1]
    entries = quarantine(tmp_path / "out")
    assert [entry["problem_id"] for entry in entries] == [
        "in.jsonl:2",
        "0001",
        "in.jsonl:4",
        "0000",
    ]
    assert [entry["reason"].split(":")[0] for entry in entries] == [
        "not valid JSON",
        "input_output has no list `inputs` (found nothing)",
        "not an object but list",
        "a record with this problem_id came before",
    ]


def test_a_folder_that_cannot_be_read_is_quarantined(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", RECORDS)
    (tmp_path / "in" / "0000" / "metadata.json").write_text("{")
    (tmp_path / "in" / "0001" / "question.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "in" / "0002" / "input_output.json").unlink()
    prepare(str(tmp_path / "in"), tmp_path / "out")
    reasons = {entry["problem_id"]: entry["reason"] for entry in quarantine(tmp_path / "out")}
    assert reasons.keys() == {"0000", "0001", "0002"}
    assert "JSONDecodeError" in reasons["0000"]
    assert "UnicodeDecodeError" in reasons["0001"]
    assert reasons["0002"] == "input_output is nothing, not an object"


def test_a_second_run_touches_no_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [*RECORDS, {"question": "?"}])

    def snapshot() -> dict[str, tuple[bytes, int]]:
        files = (tmp_path / "out").iterdir()
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    prepare(str(tmp_path / "in.jsonl"), tmp_path / "out")
    before = snapshot()
    prepare(str(tmp_path / "in.jsonl"), tmp_path / "out")
    assert snapshot() == before
    assert set(before) == {"train.parquet", "quarantine.jsonl", "data_card.json"}


def test_max_rows_takes_the_first(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", RECORDS)
    prepare(str(tmp_path / "in.jsonl"), tmp_path / "out", options=PrepareOptions(max_rows=2))
    assert [row["extra_info"]["problem_id"] for row in rows(tmp_path / "out")] == ["0000", "0001"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing/", "no such file or folder"),
        ("missing.jsonl", "no such file or folder"),
        ("empty", "nothing for split 'train'"),
        ("empty.jsonl", "no usable record"),
        ("bad.jsonl", "no usable record"),
        ("bad.parquet", "not a readable parquet file"),
        ("notes.txt", r"expected \.jsonl or \.parquet"),
    ],
)
def test_an_unusable_source_is_refused(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty.jsonl", "bad.parquet", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(SourceError, match=message):
        prepare(f"{tmp_path}/{source}", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_prepares_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "in.jsonl", [*RECORDS, {"question": "?"}])
    arguments = ["--source", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--prompt-style", "bare", "--data-source", "micro_apps"]) == 0
    assert "4 problems (0 call-based), 1 quarantined" in capsys.readouterr().out
    row = rows(tmp_path / "out")[0]
    assert row["data_source"] == "micro_apps"
    assert row["prompt"] == [{"role": "user", "content": "Print 0 plus the input."}]


def test_the_command_line_says_what_is_wrong_with_a_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--source", "./nowhere", "--out", str(tmp_path)]) == 2
    assert "prepare_apps: --source ./nowhere: no such file" in capsys.readouterr().err


def test_the_real_problems_become_rows(shared_data: Path, tmp_path: Path) -> None:
    card = prepare(str(shared_data / "apps"), tmp_path)["train"]
    assert (card["rows"], card["call_based"], card["quarantined"]) == (3, 1, 0)
    by_id = {row["extra_info"]["problem_id"]: row for row in rows(tmp_path)}
    assert sorted(by_id) == ["0001", "0111", "2404"]
    call_based = by_id["2404"]
    assert json.loads(call_based["reward_model"]["ground_truth"])["fn_name"] == "findKthPositive"
    starter = "class Solution:\n    def findKthPositive(self, arr: List[int], k: int) -> int:"
    assert call_based["extra_info"]["starter_code"].startswith(starter)
    assert starter in call_based["prompt"][0]["content"]
    assert "standard input" in by_id["0111"]["prompt"][0]["content"]
    assert all(row["extra_info"]["reference_solution"] for row in by_id.values())

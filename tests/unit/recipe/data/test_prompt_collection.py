"""Prompt-Collection: conversations kept whole, faults quarantined by reason, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.data.prepare_prompt_collection import main
from recipe.data.prompt_collection import (
    Conversation,
    PrepareOptions,
    Quarantined,
    Smallest,
    convert,
    prepare,
)
from recipe.data.sources import SourceError, Unreadable

SUBSETS = ("UltraFeedback", "HelpSteer", "OrcaPairs", "UltraInteract", "Capybara", "DIBT-10K")
SMALL = PrepareOptions(validation_rows=6)


def message(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def record(number: int, messages: Any = None, **fields: Any) -> dict[str, Any]:
    if messages is None:
        messages = [message("user", f"Question {number}?")]
    return {
        "dataset": SUBSETS[number % 6],
        "context": "the same as one text",
        "context_messages": messages,
        "id": str(number),
    } | fields


def dialogue(*roles: str) -> list[dict[str, Any]]:
    return [message(role, f"{role} says {number}") for number, role in enumerate(roles)]


def malformed() -> list[tuple[Any, str]]:
    """Fifty records that cannot be trained on, each with the start of its reason."""
    not_lists: list[Any] = ["text", {}, 3, True, 1.5, ""]
    bad_messages: list[Any] = [None, "text", 7, ["user", "hi"], 1.5]
    bad_roles: list[Any] = [None, "human", "gpt", "User", "", 3, "tool", "function", ["user"]]
    bad_contents: list[Any] = [None, 3, ["a"], {"text": "a"}, 1.5, True]
    blank = ["", " ", "\n", "\t \n"]
    bad_orders = [
        ("assistant",),
        ("system",),
        ("user", "assistant"),
        ("user", "user"),
        ("system", "assistant"),
        ("user", "system"),
        ("user", "assistant", "assistant"),
        ("system", "system", "user"),
        ("user", "user", "user"),
        ("system", "user", "assistant"),
    ]
    cases: list[tuple[Any, str]] = []
    cases += [(record(0, context_messages=value), "context_messages is a") for value in not_lists]
    cases += [(record(0, context_messages=None), "context_messages is nothing, not a list")]
    cases += [(record(0, context_messages=[]), "context_messages is empty")]
    cases += [(record(0, [value]), "message 0 is") for value in bad_messages]
    cases += [(record(0, [message(role, "x")]), "message 0 has the role") for role in bad_roles]
    cases += [
        (record(0, [message("user", value)]), "the content of message 0") for value in bad_contents
    ]
    cases += [(record(0, [message("user", value)]), "message 0 is empty") for value in blank]
    cases += [(record(0, dialogue(*roles)), "") for roles in bad_orders]
    cases += [(record(0, dataset=value), "dataset is") for value in (3, ["a"], {"a": 1})]
    cases += [
        (record(0, [message("user", "x" * 20_001)]), "20001 characters"),
        (record(0, dialogue(*["user", "assistant"] * 20, "user")), "41 messages"),
        (record(0, [message("user", "half \ud83d")]), "message 0 holds half a character"),
        (record(0, dataset="\ud83d"), "dataset holds half a character"),
        (Unreadable("f:1", "not valid JSON"), "not valid JSON"),
        (record(0, [{"role": "user"}]), "the content of message 0 is nothing"),
    ]
    return cases


def write_jsonl(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))


def conversations(items: list[Any], options: PrepareOptions) -> list[Conversation]:
    return [one for one in convert(items, options) if isinstance(one, Conversation)]


def rows(out: Path, split: str) -> list[dict[str, Any]]:
    return pq.read_table(out / f"{split}.parquet").to_pylist()


def test_a_conversation_keeps_its_messages_and_its_source(tmp_path: Path) -> None:
    told = dialogue("system", "user", "assistant", "user")
    write_jsonl(tmp_path / "in.jsonl", [record(4, told), record(5)])
    prepare(str(tmp_path / "in.jsonl"), tmp_path / "out", PrepareOptions(validation_rows=0))
    first = rows(tmp_path / "out", "train")[0]
    assert first == {
        "data_source": "prompt_collection",
        "prompt": told,
        "ability": "dialogue",
        "reward_model": {"style": "model", "ground_truth": ""},
        "extra_info": {
            "index": 0,
            "problem_id": "4",
            "split": "train",
            "subset": "Capybara",
            "turns": 4,
            "conversation": json.dumps(told),
        },
    }


def test_parquet_and_lines_give_the_same_rows(tmp_path: Path) -> None:
    records = [record(number) for number in range(20)]
    write_jsonl(tmp_path / "in.jsonl", records)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    parts = (records[:7], records[7:])
    for part, content in enumerate(parts):
        path = tmp_path / "hub" / "data" / f"train-0000{part}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(content), path)
    cards = [
        prepare(str(tmp_path / name), tmp_path / name[:2], SMALL) for name in ("in.jsonl", "hub")
    ]
    assert cards[0] == cards[1]
    assert rows(tmp_path / "in", "train") == rows(tmp_path / "hu", "train")


def test_fifty_malformed_records_are_quarantined_each_with_its_reason() -> None:
    cases = malformed()
    assert len(cases) >= 50
    for number, (item, reason) in enumerate(cases):
        (found,) = convert([item], SMALL)
        assert isinstance(found, Quarantined), f"case {number}: {item!r:.80}"
        assert found.reason.startswith(reason), f"case {number}"


def test_nothing_is_lost_among_good_and_malformed_records(tmp_path: Path) -> None:
    bad = [item for item, _ in malformed() if isinstance(item, dict)]
    good = [record(number) for number in range(30)]
    write_jsonl(tmp_path / "in.jsonl", [*good[:15], *bad, *good[15:], record(3)])
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write("{torn\n")
    card = prepare(str(tmp_path / "in.jsonl"), tmp_path / "out", SMALL)
    assert card["read"] == 30 + len(bad) + 2
    assert card["train"]["rows"] + card["validation"]["rows"] == 30
    assert card["quarantined"]["total"] == len(bad) + 2
    assert card["quarantined"]["reasons"]["the same conversation came before"] == 1
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) == len(bad) + 2
    reasons = [reason for item, reason in malformed() if isinstance(item, dict)]
    found = [json.loads(line)["reason"] for line in lines]
    assert all(text.startswith(start) for text, start in zip(found, reasons, strict=False))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    prepare(str(tmp_path / "in.jsonl"), tmp_path / "out", SMALL)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [record(number) for number in range(20)])
    prepare(str(tmp_path / "in.jsonl"), tmp_path / "out", SMALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    prepare(str(tmp_path / "in.jsonl"), tmp_path / "out", SMALL)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_held_out_conversation_stays_held_out_when_others_go() -> None:
    digests = [one.digest for one in conversations([record(n) for n in range(40)], SMALL)]

    def held(values: list[bytes]) -> list[bytes]:
        smallest = Smallest(6)
        for value in values:
            smallest.add(value)
        return smallest.values

    assert held(digests) == sorted(digests)[:6]
    gone = next(one for one in digests if one not in held(digests))
    assert held([one for one in digests if one != gone]) == held(digests)


def test_only_the_subsets_asked_for_are_kept() -> None:
    options = PrepareOptions(subsets=frozenset({"HelpSteer"}))
    found = list(convert([record(number) for number in range(12)], options))
    assert [one.identity for one in found if isinstance(one, Conversation)] == ["1", "7"]
    assert sum(isinstance(one, Quarantined) for one in found) == 10


def test_a_record_without_an_id_is_named_by_its_place() -> None:
    found = conversations([record(0), record(1, id=None)], SMALL)
    assert [one.identity for one in found] == ["0", "1"]


def test_too_few_conversations_for_both_splits_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [record(number) for number in range(6)])
    with pytest.raises(SourceError, match="6 usable conversations, and --validation-rows takes 6"):
        prepare(str(tmp_path / "in.jsonl"), tmp_path / "out", SMALL)


def test_the_command_line_says_where_the_rows_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "in.jsonl", [record(number) for number in range(12)])
    flags = ["--source", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*flags, "--validation-rows", "2"]) == 0
    assert "train.parquet: 10 conversations" in capsys.readouterr().out
    assert main(["--source", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "no such file" in capsys.readouterr().err

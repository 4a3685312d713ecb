"""DAPO-Math and AIME: each problem once, faults quarantined by reason, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.data.dapo_math import main
from recipe.data.math_problems import (
    Answers,
    PrepareOptions,
    Quarantined,
    Repeat,
    convert,
    prepare,
)
from recipe.data.math_records import MathProblem, problem_text, to_problem
from recipe.data.sources import SourceError, Unreadable

SMALL = PrepareOptions(max_problem_chars=500)
WRAPPED = "Solve this. The last line is `Answer: $Answer`.\n\n{}\n\nPut it after Answer: please."


def record(number: int, answer: Any = None, **fields: Any) -> dict[str, Any]:
    """A record in the form of DAPO-Math-17k."""
    content = WRAPPED.format(f"Find the number {number}.\n\nIt is $x$.")
    return {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": content}],
        "ability": "MATH",
        "reward_model": {
            "ground_truth": str(number) if answer is None else answer,
            "style": "rule-lighteval/MATH_v2",
        },
        "extra_info": {"index": f"id-{number}"},
    } | fields


def asked(*messages: Any) -> dict[str, Any]:
    return record(0, prompt=list(messages))


def said(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def malformed() -> list[tuple[Any, str]]:
    """More than fifty records that cannot be trained on, each with the start of its reason."""
    question = said("user", "What is 1 + 1?")
    no_numbers: list[Any] = ["", " ", "x", "1/2", "3.5", r"\frac{1}{2}", "1e3", "1,000", "--3",
                             "3 apples", "½", "٣٤", "0x10", "+", 3.5, float("inf")]  # fmt: skip
    no_kinds: list[Any] = [True, False, ["3"], {"value": 3}]
    cases: list[tuple[Any, str]] = []
    cases += [(record(0, value), "the answer '") for value in no_numbers]
    cases += [(record(0, value), "the answer is a value of type") for value in no_kinds]
    cases += [(record(0, reward_model=value), "reward_model is") for value in ("3", 3, [3], None)]
    cases += [
        (record(0, reward_model={}), "no answer"),
        (record(0, reward_model={"ground_truth": None}), "no answer"),
        ({"problem": "What is 1 + 1?"}, "no answer"),
        (record(0, "9" * 41), "the answer has 41 characters"),
    ]
    cases += [(record(0, prompt=value), "the prompt is") for value in (None, 3, {"a": 1}, 1.5)]
    cases += [({"answer": "3"}, "the prompt is nothing"), (asked(), "the prompt has no messages")]
    cases += [(asked(value), "message 0 is") for value in (None, "text", 7, ["user", "hi"])]
    bad_roles: list[Any] = [None, "human", "User", "", 3, ["user"]]
    cases += [(asked(said(role, "x")), "message 0 has the role") for role in bad_roles]
    bad_contents: list[Any] = [None, 3, ["a"], {"text": "a"}]
    cases += [(asked(said("user", value)), "the content of message 0 is") for value in bad_contents]
    cases += [
        (asked(said("user", value)), "the content of message 0 is empty") for value in ("", " \n")
    ]
    cases += [
        (asked(*messages), "the prompt's messages are by")
        for messages in (
            [said("assistant", "2")],
            [said("system", "Be right.")],
            [question, said("assistant", "2")],
            [question, question],
            [question, said("assistant", "2"), question],
        )
    ]
    cases += [
        (asked(said("user", "half \ud83d")), "the content of message 0 holds half a character"),
        (asked(said("user", "x" * 501)), "the content of message 0 has 501 characters"),
        (record(0, prompt="y" * 501), "the problem has 501 characters"),
        (record(0, prompt=" "), "the problem is empty"),
        (asked(said("user", "Write `Answer: N`.")), "the prompt says how to answer"),
        (asked(said("user", WRAPPED.format(" "))), "the prompt says how to answer"),
        (Unreadable("f:1", "not valid JSON: torn"), "not valid JSON"),
    ]
    return cases


def found(*items: Any, held_out: frozenset[bytes] = frozenset()) -> list[Any]:
    """What becomes of the items, given all of their answers."""
    answers = Answers()
    for place, item in enumerate(items):
        try:
            answers.add(to_problem(item, place, SMALL.max_problem_chars))
        except ValueError:
            continue
    return list(convert(items, answers, held_out, SMALL))


def write_jsonl(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return str(path)


def rows(out: Path, split: str) -> list[dict[str, Any]]:
    return pq.read_table(out / f"{split}.parquet").to_pylist()


def test_a_row_asks_what_the_record_asks_and_holds_the_answer(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "in.jsonl", [record(7), record(-3)])
    prepare({"train": train}, tmp_path / "out")
    first, second = rows(tmp_path / "out", "train")
    assert first == {
        "data_source": "math_dapo",
        "prompt": record(7)["prompt"],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "7"},
        "extra_info": {"index": 0, "problem_id": "id-7", "split": "train"},
    }
    assert second["reward_model"]["ground_truth"] == "-3"


@pytest.mark.parametrize(
    ("answer", "shortest"),
    [("033", "33"), (33, "33"), (33.0, "33"), (" 33\n", "33"), ("-0", "0"), ("+5", "5"),
     ("33.", "33"), ("9" * 40, "9" * 40)],
)  # fmt: skip
def test_an_answer_is_written_in_its_shortest_form(answer: Any, shortest: str) -> None:
    assert to_problem(record(0, answer), 0, 500).answer == shortest


@pytest.mark.parametrize(
    "item",
    [
        {"problem": "What is 1 + 1?", "answer": 2, "id": 9},
        {"Problem": "What is 1 + 1?", "Answer": "002", "ID": "9"},
        {"prompt": "What is 1 + 1?", "solution": "2", "extra_info": {"index": "9"}},
        {"prompt": [said("user", "What is 1 + 1?")], "reward_model": {"ground_truth": "2"},
         "id": 9},
    ],
)  # fmt: skip
def test_a_bare_problem_is_asked_for_the_line_that_the_scorer_reads(item: Any) -> None:
    problem = to_problem(item, 0, 500)
    (message,) = problem.messages
    assert message["content"].startswith("What is 1 + 1?\n")
    assert "Answer: " in message["content"]
    assert (problem.text, problem.answer, problem.name) == ("What is 1 + 1?", "2", "9")


def test_a_problem_is_the_same_however_it_is_asked() -> None:
    bare, wrapped = "Find it.\n\nSoon.", WRAPPED.format("Find  it.\n\n Soon. ")
    assert problem_text(wrapped).split() == bare.split()
    items = [{"problem": text, "answer": 3} for text in (bare, wrapped)]
    first, second = found(*items)
    assert isinstance(first, MathProblem)
    assert second == Repeat()
    assert problem_text("The `Answer:` is missing here. Find it.") == ""
    assert problem_text("Find it after `Answer:`\n\nSoon.") == "Soon."


def test_more_than_fifty_malformed_records_are_quarantined_each_with_its_reason() -> None:
    cases = malformed()
    assert len(cases) >= 50
    for number, (item, reason) in enumerate(cases):
        (one,) = found(item)
        assert isinstance(one, Quarantined), f"case {number}: {item!r:.80}"
        assert one.reason.startswith(reason), f"case {number}: {one.reason}"


def test_a_problem_with_several_answers_is_left_out_wherever_it_stands() -> None:
    kinds = [type(one) for one in found(record(1), record(2), record(1, "4"), record(1), record(2))]
    assert kinds == [Quarantined, MathProblem, Quarantined, Quarantined, Repeat]


def test_nothing_is_lost_among_good_repeated_and_malformed_records(tmp_path: Path) -> None:
    bad = [item for item, _ in malformed() if isinstance(item, dict)]
    good = [record(number) for number in range(1, 31)]
    source = write_jsonl(tmp_path / "in.jsonl", [*good, *bad, *good, *good])
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write("{torn\n")
    card = prepare({"train": source}, tmp_path / "out", SMALL)["train"]
    assert (card["rows"], card["repeats"], card["quarantined"]) == (30, 60, len(bad) + 1)
    assert card["read"] == 90 + len(bad) + 1
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert len(entries) == len(bad) + 1
    reasons = [reason for item, reason in malformed() if isinstance(item, dict)]
    assert all(
        entry["split"] == "train" and entry["reason"].startswith(reason)
        for entry, reason in zip(entries, [*reasons, "not valid JSON"], strict=True)
    )
    assert json.loads((tmp_path / "out" / "data_card.json").read_text()) == {"train": card}
    assert [row["extra_info"]["index"] for row in rows(tmp_path / "out", "train")] == list(
        range(30)
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    prepare({"train": source}, tmp_path / "out", SMALL)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_no_validation_problem_is_trained_on(tmp_path: Path) -> None:
    aime = [{"problem": f"Find the number {n}.\n\nIt is $x$.", "answer": n} for n in (3, 99)] * 32
    sources = {
        "train": write_jsonl(tmp_path / "train.jsonl", [record(number) for number in range(1, 6)]),
        "validation": write_jsonl(tmp_path / "aime.jsonl", aime),
    }
    card = prepare(sources, tmp_path / "out")
    assert (card["validation"]["rows"], card["validation"]["repeats"]) == (2, 62)
    assert card["train"]["reasons"] == {"the problem is one of the validation's": 1}
    assert [row["extra_info"]["problem_id"] for row in rows(tmp_path / "out", "train")] == [
        "id-1", "id-2", "id-4", "id-5",
    ]  # fmt: skip
    assert {row["data_source"] for row in rows(tmp_path / "out", "validation")} == {"aime_2024"}


def test_a_split_prepared_later_leaves_the_other_on_record(tmp_path: Path) -> None:
    bad = {"prompt": None}
    train = write_jsonl(tmp_path / "train.jsonl", [record(1), bad])
    held_out = write_jsonl(tmp_path / "aime.jsonl", [record(2), bad, bad])
    first = prepare({"train": train}, tmp_path / "out")
    second = prepare({"validation": held_out}, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "data_card.json").read_text()) == first | second
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["split"] for line in lines] == ["train", "validation", "validation"]


def test_parquet_in_a_folder_of_the_hubs_layout_gives_the_same_rows(tmp_path: Path) -> None:
    records = [record(number) for number in range(20)]
    (tmp_path / "hub" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "hub" / "data" / "dapo-math.parquet")
    lines = write_jsonl(tmp_path / "in.jsonl", records)
    for name, source in (("a", lines), ("b", str(tmp_path / "hub"))):
        prepare({"train": source}, tmp_path / name)
    assert rows(tmp_path / "a", "train") == rows(tmp_path / "b", "train")


def test_a_source_without_a_usable_problem_leaves_no_file(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": None}] * 3)
    reason = "no usable problem for train; most frequent reasons: .*the prompt is nothing"
    for dry_run in (True, False):
        with pytest.raises(SourceError, match=reason):
            prepare({"train": source}, tmp_path / "out", PrepareOptions(dry_run=dry_run))
        assert not list(tmp_path.glob("out/*.parquet*"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no \.jsonl or \.parquet file"):
        prepare({"train": str(tmp_path / "empty")}, tmp_path / "out")


def test_the_command_line_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_jsonl(tmp_path / "in.jsonl", [record(n) for n in (1, 2, 1)] + [{"prompt": 3}])
    held_out = write_jsonl(tmp_path / "aime.jsonl", [record(9)])
    command = ["--source", train, "--validation", held_out, "--out", str(tmp_path / "out")]
    assert main([*command, "--dry-run"]) == 0
    assert "dry run: nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    said_then = capsys.readouterr().out
    assert "train.parquet: 2 problems, 1 repeats left out, 1 quarantined" in said_then
    assert "validation.parquet: 1 problems, 0 repeats left out, 0 quarantined" in said_then
    assert main([*command, "--validation", "", "--max-rows", "1"]) == 0
    assert len(rows(tmp_path / "out", "train")) == 1
    assert main([*command, "--source", str(tmp_path / "none.jsonl")]) == 2
    assert "dapo_math: --source" in capsys.readouterr().err

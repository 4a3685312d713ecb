"""Fifty broken APPS records among good ones: each refused for its reason, nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recipe.data.apps import Limits, PrepareOptions, prepare

SUITE = {"inputs": ["1\n"], "outputs": ["2\n"]}
CALLED = {"inputs": [[1]], "outputs": [2], "fn_name": "f"}
OPTIONS = PrepareOptions(limits=Limits(max_question_chars=500, max_case_chars=500))


def record(name: str, **changes: Any) -> dict[str, Any]:
    base = {
        "problem_id": name,
        "question": f"{name}: print the next number.",
        "input_output": json.dumps(SUITE),
        "solutions": json.dumps(["print(int(input()) + 1)"]),
        "difficulty": "interview",
        "url": "",
        "starter_code": "",
    }
    return base | changes


def suite(**changes: Any) -> str:
    return json.dumps(SUITE | changes)


def called(**changes: Any) -> str:
    return json.dumps(CALLED | changes)


BROKEN_LINES = [
    ("{", "not valid JSON"),
    ("nonsense", "not valid JSON"),
    ('{"problem_id": 1', "not valid JSON"),
    ("[" * 50_000, "not valid JSON"),
    ('{"n": 1' + "0" * 200_000 + "}", "not valid JSON"),
    ("[1]", "not an object but list"),
    ('"text"', "not an object but str"),
    ("null", "not an object but NoneType"),
    ("3", "not an object but int"),
]
BROKEN_COLUMNS: list[tuple[dict[str, Any], str]] = [
    ({"question": None}, "the question is empty"),
    ({"question": ""}, "the question is empty"),
    ({"question": " \n\t"}, "the question is empty"),
    ({"question": 7}, "question is a value of type int"),
    ({"question": ["a"]}, "question is a value of type list"),
    ({"question": {"text": "a"}}, "question is a value of type dict"),
    ({"question": "x" * 501}, "the question has 501 characters"),
    ({"question": "half \ud83d"}, "question holds half a character"),
    ({"starter_code": 3}, "starter_code is a value of type int"),
    ({"starter_code": ["def f():"]}, "starter_code is a value of type list"),
    ({"starter_code": "\udc00"}, "starter_code holds half a character"),
    ({"difficulty": 3}, "difficulty is a value of type int"),
    ({"difficulty": True}, "difficulty is a value of type bool"),
    ({"difficulty": "\ud800"}, "difficulty holds half a character"),
    ({"input_output": None}, "input_output is nothing, not an object"),
    ({"input_output": ""}, "input_output is not valid JSON"),
    ({"input_output": "{"}, "input_output is not valid JSON"),
    ({"input_output": "'a'"}, "input_output is not valid JSON"),
    ({"input_output": "[]"}, "input_output is a value of type list"),
    ({"input_output": "3"}, "input_output is a value of type int"),
    ({"input_output": 3}, "input_output is a value of type int"),
    ({"input_output": {}}, "input_output has no list `inputs`"),
    ({"input_output": suite(inputs=None)}, "input_output has no list `inputs`"),
    ({"input_output": suite(inputs="1")}, "input_output has no list `inputs`"),
    ({"input_output": suite(outputs=None)}, "input_output has no list `outputs`"),
    ({"input_output": suite(outputs={})}, "input_output has no list `outputs`"),
    ({"input_output": suite(inputs=[], outputs=[])}, "input_output has no tests"),
    ({"input_output": suite(inputs=["1", "2"])}, "input_output has 2 inputs and 1 outputs"),
    ({"input_output": suite(inputs=[1])}, "input 0 is a value of type int"),
    ({"input_output": suite(inputs=[None])}, "input 0 is nothing"),
    ({"input_output": suite(inputs=[["a", 1]])}, "input 0 is a value of type list"),
    ({"input_output": suite(outputs=[2.5])}, "output 0 is a value of type float"),
    ({"input_output": suite(outputs=[{"a": 1}])}, "output 0 is a value of type dict"),
    ({"input_output": suite(inputs=["x" * 501])}, "test 0 has 503 characters"),
    ({"input_output": suite(fn_name="f")}, "input 0 is a value of type str, not a list"),
    ({"input_output": called(fn_name="")}, "fn_name '' is not a Python name"),
    ({"input_output": called(fn_name="a b")}, "fn_name 'a b' is not a Python name"),
    ({"input_output": called(fn_name=3)}, "fn_name 3 is not a Python name"),
    ({"input_output": called(fn_name=["f"])}, "fn_name ['f'] is not a Python name"),
    ({"input_output": called(inputs=[{"a": 1}])}, "input 0 is a value of type dict"),
    (
        {"input_output": suite(inputs=["1", "1"], outputs=["2", "3"])},
        "the judge cannot use the tests: one input with two different outputs",
    ),
]
HARMLESS: list[dict[str, Any]] = [
    {"problem_id": None},
    {"problem_id": "half \ud83d"},
    {"solutions": None},
    {"solutions": "{"},
    {"solutions": json.dumps(["print('\ud83d')"])},
    {"url": 3},
    {"unknown": {"a": [1]}},
    {"difficulty": None},
]
"""Odd, but nothing that the policy or the judge is given."""


def test_fifty_broken_records_are_quarantined_and_the_good_ones_kept(tmp_path: Path) -> None:
    broken = [*BROKEN_LINES]
    broken += [
        (json.dumps(record(f"bad{number}", **changes)), reason)
        for number, (changes, reason) in enumerate(BROKEN_COLUMNS)
    ]
    assert len(broken) == 50
    good = [json.dumps(record(f"good{number}")) for number in range(50)]
    odd = [json.dumps(record(f"odd{n}") | changes) for n, changes in enumerate(HARMLESS)]
    pairs = [line for (bad, _), kept in zip(broken, good, strict=True) for line in (bad, kept)]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join([*pairs, *odd, good[0]]) + "\n")

    card = prepare(str(source), tmp_path / "out", options=OPTIONS)["train"]
    assert (card["read"], card["rows"], card["quarantined"]) == (109, 58, 51)
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    names = [row["extra_info"]["problem_id"] for row in rows]
    assert names[:50] == [f"good{number}" for number in range(50)]
    assert names[50:52] == ["100", "half ?"]
    entries = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    found = [json.loads(entry)["reason"] for entry in entries]
    expected = [*(reason for _, reason in broken), "a record with this problem_id came before"]
    assert [text[: len(start)] for text, start in zip(found, expected, strict=True)] == expected

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    prepare(str(source), tmp_path / "out", options=OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before

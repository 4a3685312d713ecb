"""One APPS record to one row: what the policy sees, what the judge gets, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recipe.data.apps_records import Limits, PromptStyle, reference_solutions, to_row
from recipe.data.rows import Malformed

STDIN = {"inputs": ["1 2\n"], "outputs": ["3\n"]}
CALL = {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}


def record(**changes: Any) -> dict[str, Any]:
    """A well-formed standard-input record with some columns changed."""
    base = {
        "problem_id": 7,
        "question": "\nAdd two numbers.\n",
        "input_output": json.dumps(STDIN),
        "solutions": json.dumps(["print(sum(map(int,input().split())))", "other"]),
        "difficulty": "introductory",
        "url": "https://example.org/7",
        "starter_code": "",
    }
    return base | changes


def row_of(source: dict[str, Any], style: PromptStyle = PromptStyle.APPS) -> dict[str, Any]:
    return to_row(source, data_source="apps", split="train", index=4, style=style, limits=Limits())


def test_a_row_has_the_columns_that_verl_reads() -> None:
    row = row_of(record())
    assert row["data_source"] == "apps"
    assert row["ability"] == "code"
    assert row["reward_model"]["style"] == "rule"
    assert json.loads(row["reward_model"]["ground_truth"]) == STDIN
    assert row["extra_info"] == {
        "index": 4,
        "problem_id": "7",
        "split": "train",
        "difficulty": "introductory",
        "starter_code": "",
        "reference_solution": "print(sum(map(int,input().split())))",
    }


def test_the_prompt_asks_for_standard_input_and_one_block() -> None:
    (message,) = row_of(record())["prompt"]
    assert message["role"] == "user"
    assert message["content"].startswith("Add two numbers.\n\n")
    assert "standard input" in message["content"]
    assert "exactly one ```python block" in message["content"]


def test_a_call_based_prompt_names_the_function_and_shows_the_starter_code() -> None:
    source = record(input_output=CALL, starter_code="def add(a, b):\n    ")
    content = row_of(source)["prompt"][0]["content"]
    assert "```python\ndef add(a, b):\n    \n```" in content
    assert "defines `add`" in content
    assert "standard input" not in content


def test_a_starter_code_with_braces_is_shown_as_it_stands() -> None:
    source = record(input_output=CALL, starter_code="CACHE = {0: {}}\ndef add(a, b):")
    assert "CACHE = {0: {}}" in row_of(source)["prompt"][0]["content"]


def test_a_bare_prompt_is_question_and_starter_code_only() -> None:
    assert row_of(record(), PromptStyle.BARE)["prompt"][0]["content"] == "Add two numbers."
    source = record(input_output=CALL, starter_code="def add(a,b):")
    content = row_of(source, PromptStyle.BARE)["prompt"][0]["content"]
    assert content == "Add two numbers.\ndef add(a,b):"


def test_parsed_columns_and_json_text_give_the_same_row() -> None:
    parsed = record(input_output=STDIN, solutions=["print(sum(map(int,input().split())))"])
    assert row_of(parsed) == row_of(record())


def test_the_function_name_reaches_the_judge() -> None:
    row = row_of(record(input_output=CALL))
    assert json.loads(row["reward_model"]["ground_truth"]) == CALL


def test_input_and_output_may_be_lists_of_lines() -> None:
    suite = {"inputs": [["1", "2"]], "outputs": [["3"]]}
    row = row_of(record(input_output=suite))
    assert json.loads(row["reward_model"]["ground_truth"]) == suite


def test_integers_beyond_64_bits_survive() -> None:
    suite = {"fn_name": "f", "inputs": [[2**80]], "outputs": [2**81]}
    row = row_of(record(input_output=json.dumps(suite)))
    assert json.loads(row["reward_model"]["ground_truth"])["outputs"] == [2**81]


@pytest.mark.parametrize(
    "solutions", [None, "", "[]", "not json", "{}", json.dumps(["", "  "]), json.dumps([3])]
)
def test_without_a_usable_solution_the_problem_stays(solutions: Any) -> None:
    assert row_of(record(solutions=solutions))["extra_info"]["reference_solution"] == ""


def test_an_overlong_solution_is_passed_over() -> None:
    limits = Limits(max_solution_chars=5)
    assert reference_solutions(json.dumps(["toolong", "short", "short"]), limits) == ["short"]


SMALL = Limits(max_question_chars=50, max_case_chars=40, max_suite_chars=60)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": None}, "question is empty"),
        ({"question": " \n "}, "question is empty"),
        ({"question": 5}, "question is a value of type int"),
        ({"question": "x" * 51}, "51 characters, over 50"),
        ({"starter_code": ["def"]}, "starter_code is a value of type list"),
        ({"difficulty": 3}, "difficulty is a value of type int"),
        ({"input_output": None}, "input_output is nothing"),
        ({"input_output": ""}, "not valid JSON"),
        ({"input_output": "{"}, "not valid JSON"),
        ({"input_output": "[" * 100_000}, "not valid JSON"),
        (
            {"input_output": '{"inputs": [1' + "0" * 200_000 + '], "outputs": [1]}'},
            "not valid JSON",
        ),
        ({"input_output": "[]"}, "value of type list, not an object"),
        ({"input_output": {}}, "no list `inputs` (found nothing)"),
        ({"input_output": {"inputs": ["a"]}}, "no list `outputs`"),
        ({"input_output": {"inputs": "a", "outputs": ["b"]}}, "no list `inputs`"),
        ({"input_output": {"inputs": [], "outputs": []}}, "no tests"),
        ({"input_output": {"inputs": ["a", "b"], "outputs": ["c"]}}, "2 inputs and 1 outputs"),
        ({"input_output": STDIN | {"fn_name": "two words"}}, "not a Python name"),
        ({"input_output": STDIN | {"fn_name": ["f"]}}, "not a Python name"),
        ({"input_output": STDIN | {"fn_name": ""}}, "not a Python name"),
        ({"input_output": STDIN | {"fn_name": "f"}}, "input 0 is a value of type str, not a list"),
        ({"input_output": {"inputs": [3], "outputs": ["3"]}}, "input 0 is a value of type int"),
        ({"input_output": {"inputs": ["3"], "outputs": [None]}}, "output 0 is nothing"),
        ({"input_output": {"inputs": [["a", 1]], "outputs": ["b"]}}, "input 0 is a value"),
        ({"input_output": {"inputs": ["x" * 41], "outputs": [""]}}, "test 0 has 41 characters"),
        (
            {"input_output": {"inputs": ["a" * 35, "b" * 35], "outputs": ["", ""]}},
            "the tests have 70 characters, over 60",
        ),
    ],
)
def test_a_malformed_record_is_refused_with_the_reason(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Malformed) as refusal:
        to_row(
            record(**changes),
            data_source="apps",
            split="train",
            index=0,
            style=PromptStyle.APPS,
            limits=SMALL,
        )
    assert reason in str(refusal.value)

"""APPS and HumanEval records: parsed, or refused with a reason."""

import json
from typing import Any

import pytest

from reward.problem import MalformedProblem, parse_input_output, parse_problem
from reward.sandbox.wire import Kind


def test_stdin_problems_keep_their_text() -> None:
    problem = parse_input_output({"inputs": ["1\n", "2\n"], "outputs": ["2", "4"]})
    assert problem.kind == Kind.STDIO
    assert [(t.given, t.expected) for t in problem.tests] == [(b"1\n", "2"), (b"2\n", "4")]


def test_lists_of_lines_are_joined() -> None:
    problem = parse_input_output({"inputs": [["1", "2"]], "outputs": [["3", "4"]]})
    assert (problem.tests[0].given, problem.tests[0].expected) == (b"1\n2", "3\n4")


def test_json_text_is_parsed() -> None:
    problem = parse_input_output(json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [2]}))
    assert (problem.kind, problem.entry) == (Kind.CALL, "f")
    assert json.loads(problem.tests[0].given) == [1]


def test_outputs_wrapped_in_lists_of_one_are_unwrapped_for_all_or_none() -> None:
    wrapped = parse_input_output({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [2]]})
    assert [t.expected for t in wrapped.tests] == [1, 2]
    mixed = parse_input_output({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [2, 3]]})
    assert [t.expected for t in mixed.tests] == [[1], [2, 3]]
    told = {"fn_name": "f", "inputs": [[1]], "outputs": [[1]], "unwrap_outputs": False}
    assert parse_input_output(told).tests[0].expected == [1]


def test_duplicate_tests_are_collapsed() -> None:
    problem = parse_input_output({"inputs": ["1", "2", "1"], "outputs": ["a", "b", "a"]})
    assert [t.given for t in problem.tests] == [b"1", b"2"]
    assert problem.duplicates == 1


def test_humaneval_records_are_recognised() -> None:
    record = {
        "task_id": "H/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "test": "def check(c): assert c(1)",
    }
    problem = parse_problem(record)
    assert (problem.problem_id, problem.kind, problem.entry) == ("H/0", Kind.CHECK, "f")
    assert problem.prefix == "def f(x):\n"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "neither"),
        ({"input_output": "{"}, "not JSON"),
        ({"input_output": "[" * 100_000}, "not JSON"),
        ({"input_output": []}, "not an object"),
        ({"input_output": {"inputs": ["1"]}}, "must be lists"),
        ({"input_output": {"inputs": ["1"], "outputs": []}}, "1 inputs but 0 outputs"),
        ({"input_output": {"inputs": [], "outputs": []}}, "no tests"),
        ({"input_output": {"inputs": [1], "outputs": ["1"]}}, "an input is a int"),
        ({"input_output": {"inputs": ["1"], "outputs": [None]}}, "an output is a NoneType"),
        ({"input_output": {"inputs": ["1", "1"], "outputs": ["1", "2"]}}, "two different outputs"),
        ({"input_output": {"inputs": ["1" * (40 << 20)], "outputs": ["1"]}}, "at most"),
        ({"input_output": {"inputs": ["1"] * 10_001, "outputs": ["1"] * 10_001}}, "at most"),
        ({"input_output": {"fn_name": "f", "inputs": ["1"], "outputs": [1]}}, "not a list"),
        ({"input_output": {"fn_name": "f()", "inputs": [[1]], "outputs": [1]}}, "not a name"),
        ({"input_output": {"fn_name": 3, "inputs": [[1]], "outputs": [1]}}, "not a name"),
        ({"input_output": {"fn_name": "f", "inputs": [[{1}]], "outputs": [1]}}, "not JSON"),
        ({"entry_point": "f", "test": ""}, "empty"),
        ({"entry_point": "f-g", "test": "x"}, "not a name"),
        ({"entry_point": "f", "test": 3}, "must be text"),
    ],
)
def test_malformed_problems_are_refused_with_a_reason(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedProblem, match=reason):
        parse_problem(record)

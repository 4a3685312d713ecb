"""Weak tests are found, and examples from the prompt can be left out."""

import pytest

from reward.problem import parse_input_output, parse_problem
from reward.quality import best_constant, without_examples
from reward.verdict import Tiers


def test_the_best_constant_is_the_most_frequent_answer() -> None:
    cases = {"inputs": ["1", "2", "3", "4"], "outputs": ["YES\n", "NO", "YES", "yes"]}
    constant = best_constant(parse_input_output(cases), Tiers(), adaptive=True)
    assert (constant.answer, constant.passed, constant.total) == ("YES", 2, 4)
    assert constant.score == pytest.approx(-0.3 + 1.3 / 2)
    assert best_constant(parse_input_output(cases), Tiers(), adaptive=False).score == -0.3


def test_one_answer_for_all_tests_is_worth_everything() -> None:
    cases = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[0, 1], [0, 1]]}
    constant = best_constant(parse_input_output(cases), Tiers(), adaptive=False)
    assert (constant.answer, constant.passed, constant.score) == ("[0, 1]", 2, 1.0)


def test_assertions_have_no_constant() -> None:
    problem = parse_problem({"entry_point": "f", "test": "def check(c): assert c(1)", "prompt": ""})
    assert best_constant(problem, Tiers(), adaptive=True).passed == 0


STDIO = {"inputs": ["3\n1 2 3\n", "2\n5 5\n", "1\n9\n"], "outputs": ["6\n", "10\n", "9\n"]}
QUESTION = "Add.\n\n-----Examples-----\nInput\n3\n1 2 3\n\nOutput\n6\n"


def test_examples_of_the_prompt_are_left_out() -> None:
    problem = without_examples(parse_input_output(STDIO), QUESTION, min_tests=2)
    assert [test.expected for test in problem.tests] == ["10\n", "9\n"]


def test_examples_stay_where_too_few_tests_would_remain() -> None:
    problem = parse_input_output(STDIO)
    assert without_examples(problem, QUESTION, min_tests=3) == problem


def test_parts_of_lines_are_no_example() -> None:
    problem = parse_input_output(STDIO)
    assert without_examples(problem, "add 3\nnumbers 1 2 3\nyielding 6", min_tests=1) == problem


def test_examples_of_calls_are_recognised() -> None:
    cases = {"fn_name": "f", "inputs": [[[2, 3], 5], [[1], 7]], "outputs": [9, 8]}
    question = "Example 1:\nInput: arr = [2,3], k = 5\nOutput: 9\nExplanation: ..."
    problem = without_examples(parse_input_output(cases), question, min_tests=1)
    assert [test.expected for test in problem.tests] == [8]

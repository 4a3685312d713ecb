"""Problems with several right answers: their own checker says what is right."""

from typing import Any

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import MalformedProblem, Problem, parse_input_output, parse_problem
from reward.verdict import Verdict

# Two numbers that add up to n; any two will do.
SPLIT = """
def check(input, output, answer):
    words = output.split()
    if len(words) != 2 or not all(w.lstrip('-').isdigit() for w in words):
        return False
    return int(words[0]) + int(words[1]) == int(input)
"""
CASES: dict[str, Any] = {
    "inputs": [f"{n}\n" for n in range(10)],
    "outputs": [f"{n} 0\n" for n in range(10)],
}
RIGHT = [
    "n = int(input())\nprint(n, 0)",
    "n = int(input())\nprint(1, n - 1)",
    "import random\nn = int(input())\nk = random.randrange(10**6)\nprint(k, n - k)",
]
WRONG = ["n = int(input())\nprint(n, 1)", "print('x')", "print()", "print(1, 2, 3)"]


def split(checker: str = SPLIT) -> Problem:
    return parse_problem({"problem_id": "1", "input_output": CASES, "checker": checker})


@pytest.fixture(scope="module", params=[False, True], ids=["fast", "strict"])
def judge(request: pytest.FixtureRequest) -> Any:
    config = JudgeConfig(
        workers=1, strict=request.param, audit_fraction=0.0, timeout_s=0.5, checker_timeout_s=0.3
    )
    with Judge(config) as judge:
        yield judge


@pytest.mark.parametrize("code", RIGHT)
def test_every_right_answer_is_accepted(judge: Judge, code: str) -> None:
    assert judge.judge(split(), code).verdict == Verdict.ACCEPTED


@pytest.mark.parametrize("code", WRONG)
def test_wrong_answers_are_not(judge: Judge, code: str) -> None:
    assert judge.judge(split(), code).verdict == Verdict.WRONG_ANSWER


def test_results_of_calls_are_checked_as_values(judge: Judge) -> None:
    checker = "def check(input, output, answer):\n    return sorted(output) == sorted(answer)\n"
    cases = {"fn_name": "f", "inputs": [[3], [4]], "outputs": [[0, 1, 2], [0, 1, 2, 3]]}
    problem = parse_input_output(cases, checker=checker)
    for code, verdict in (
        ("def f(n): return list(range(n))[::-1]", Verdict.ACCEPTED),
        ("def f(n): return list(range(n - 1))", Verdict.WRONG_ANSWER),
    ):
        assert judge.judge(problem, code).verdict == verdict


def test_a_part_of_a_test_counts_in_part() -> None:
    checker = "def check(input, output, answer):\n    return int(output) / 4\n"
    problem = parse_input_output({"inputs": ["2", "4"], "outputs": ["4", "4"], "checker": checker})
    config = JudgeConfig(workers=1, audit_fraction=0.0, adaptive=True)
    with Judge(config) as judge:
        result = judge.judge(problem, "print(input())")
        assert (result.verdict, result.passed) == (Verdict.WRONG_ANSWER, 1)
        assert result.score == pytest.approx(-0.3 + 1.3 * 1.5 / 2)
        assert judge.judge(problem, "print(4)").score == 1.0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('bad')", "raised ValueError: bad"),
        ("return 'yes'", "returned 'yes'"),
        ("return None", "returned None"),
        ("return float('nan')", "returned nan"),
        ("return 2", "returned 2"),
        ("return -0.5", "returned -0.5"),
        ("while True: pass", "time limit"),
        ("import time; time.sleep(99)", "time limit"),
        ("import os; os._exit(0)", "wrote nothing"),
        ("import os; os._exit(3)", "exit status 3"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("raise SystemExit", "ended"),
        ("return [0] * 10**12", "MemoryError"),
        ("import socket; socket.socket()", "PermissionError"),
        ("return open('/etc/passwd').read() != ''", "PermissionError"),
    ],
)
def test_a_checkers_own_fault_is_never_a_reward(judge: Judge, body: str, reason: str) -> None:
    problem = split(f"def check(input, output, answer):\n    {body}\n")
    result = judge.judge(problem, RIGHT[0])
    assert (result.verdict, result.score, result.judge_failed) == (
        Verdict.INTERNAL_ERROR,
        0.0,
        True,
    )
    assert reason in result.detail
    assert judge.judge(split(), RIGHT[1]).verdict == Verdict.ACCEPTED


def test_the_program_cannot_reach_the_checker(judge: Judge) -> None:
    """Neither by its output, nor by what it leaves in its own process."""
    for code in (
        "import builtins, sys\nbuiltins.int = lambda *a: 0\nsys.modules['checker'] = None\n"
        "print('__import__(\"os\")._exit(0)')",
        "check = lambda *a: True\nprint('True')",
        "print('1' * 5000, '0')",
    ):
        assert judge.judge(split(), code).verdict != Verdict.ACCEPTED


@pytest.mark.parametrize(
    ("checker", "reason"),
    [
        ("def check(a, b, c) return True", "does not compile"),
        ("x = 1", "defines no function check"),
        ("def verify(a, b, c): return True", "defines no function check"),
        (3, "a int, not Python source"),
    ],
)
def test_a_checker_that_is_none_is_refused(checker: Any, reason: str) -> None:
    with pytest.raises(MalformedProblem, match=reason):
        split(checker)


def test_one_input_may_have_two_outputs_where_a_checker_decides() -> None:
    cases = {"inputs": ["1", "1"], "outputs": ["1 0", "0 1"], "checker": SPLIT}
    problem = parse_input_output(cases)
    assert (len(problem.tests), problem.duplicates) == (1, 1)

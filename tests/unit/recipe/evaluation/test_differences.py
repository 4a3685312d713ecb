"""Our side of the table in docs/evaluation.md: verdicts in which the original harnesses differ."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import parse_problem

TEST = "def check(f):\n    assert f(1, 2) == 3\n    assert f(0, 4) == 4\n"
RIGHT = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(JudgeConfig(workers=1)) as judge:
        yield judge


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        (RIGHT, "accepted"),
        (f"import numpy as np\n{RIGHT}", "accepted"),
        (f"import matplotlib\n{RIGHT}", "runtime_error"),  # not among the sandbox's packages
        (
            "class Equal:\n    def __eq__(self, other):\n        return True\n"
            "def add(a, b):\n    return Equal()\n",
            "wrong_answer",
        ),
        (
            "import sys\ndef add(a, b):\n"
            "    return a + b if sys._getframe(1).f_code.co_name == 'check' else 0\n",
            "wrong_answer",
        ),
        (
            "def add(a, b):\n    open('sum', 'w').write(str(a + b))\n    return a + b\n",
            "runtime_error",
        ),
        (f"import os\nos.getcwd()\n{RIGHT}", "accepted"),
    ],
)
def test_a_verdict_that_the_original_harnesses_give_otherwise(
    program: str, verdict: str, judge: Judge
) -> None:
    record = {"task_id": "add", "entry_point": "add", "test": TEST, "prompt": ""}
    problem = replace(parse_problem(record), prefix="", preface="")
    assert judge.judge(problem, program).verdict == verdict


@pytest.mark.parametrize(
    ("made", "assertion", "verdict"),
    [
        ("fractions.Fraction(x, 2)", "f(1) == fractions.Fraction(1, 2)", "accepted"),
        ("decimal.Decimal(x)", "f(1) == decimal.Decimal(1)", "accepted"),
        ("datetime.date(2020, 1, x)", "f(1) == datetime.date(2020, 1, 1)", "accepted"),
        ("datetime.date(2020, 1, x)", "f(1) == datetime.date(2020, 1, 2)", "wrong_answer"),
        ("datetime.timedelta(x)", "f(1) == datetime.timedelta(days=1)", "accepted"),
        ("[datetime.datetime(2020, 1, x)]", "f(1)[0].year == 2020", "accepted"),
        # Both pass in the original harnesses.
        ("(lambda: x)", "f(1)() == 1", "wrong_answer"),
        ("Own(x)", "f(1).x == 1", "wrong_answer"),
    ],
)
def test_values_of_the_standard_library_travel_and_the_programs_own_do_not(
    made: str, assertion: str, verdict: str, judge: Judge
) -> None:
    imports = "import datetime, decimal, fractions\n"
    own = "class Own:\n    def __init__(self, x):\n        self.x = x\n"
    program = f"{imports}{own}def f(x):\n    return {made}\n"
    test = f"{imports}def check(f):\n    assert {assertion}\n"
    record = {"task_id": "f", "entry_point": "f", "test": test, "prompt": ""}
    problem = replace(parse_problem(record), prefix="", preface="")
    assert judge.judge(problem, program).verdict == verdict

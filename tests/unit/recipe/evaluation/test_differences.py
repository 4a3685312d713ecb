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

"""No completion that knows nothing of a problem is accepted where an honest trivial one is not."""

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import Problem, parse_problem
from reward.verdict import Verdict

SOURCES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "generic.yaml").read_text())
BASES = ("object", "int", "float", "str", "list", "tuple", "dict")
GENERIC: dict[str, str] = {
    **{f"{name} looked up": spy + SOURCES["look_up"] for name, spy in SOURCES["spies"].items()},
    **{f"equal to all, {base}": SOURCES["everything"].replace("BASE", base) for base in BASES},
    **SOURCES["tricks"],
}
"""Completions that no problem should accept, unless it accepts a trivial one as well."""

PROBLEMS = {
    "check": "def check(candidate):\n    assert candidate(3) == 9\n    assert candidate(2) == 4\n",
    "at the top": "assert f(3) == 9\nassert f(2) == 4\n",
    "text": "assert f('ab') == 'ba'\nassert f('xyz') == 'zyx'\n",
    "lists": (
        "def check(candidate):\n    assert candidate([2, 1]) == [1, 2]\n"
        "    assert candidate([]) == []\n"
    ),
    "yes or no": "assert f(7) == True\nassert f(8) == False\nassert f(11) is True\n",
    "close": "def check(candidate):\n    assert abs(candidate(2) - 1.4142) < 1e-3\n",
    "a loop": (
        "def check(candidate):\n    for n in range(4):\n        assert candidate(n) == n + 1\n"
    ),
    "pytest": "def test_f():\n    assert f(3) == 9\n",
    "unittest": (
        "import unittest\nclass T(unittest.TestCase):\n    def test_1(self):\n"
        "        self.assertEqual(f(3), 9)\n        self.assertAlmostEqual(f(2), 4)\n"
    ),
    "errors": (
        "def check(candidate):\n    assert candidate(3) == 9\n    try:\n        candidate('x')\n"
        "        assert False\n    except TypeError:\n        pass\n"
    ),
}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(JudgeConfig(timeout_s=0.5, memory_bytes=256 << 20, retries=0)) as both:
        yield both


@pytest.mark.parametrize("name", GENERIC)
def test_no_generic_completion_passes_a_test_that_asks_for_something(
    judge: Judge, name: str
) -> None:
    futures = {
        kind: judge.submit(
            parse_problem({"entry_point": "f", "prompt": "", "test": test}),
            _completion(GENERIC[name], "f"),
        )
        for kind, test in PROBLEMS.items()
    }
    for kind, future in futures.items():
        result = future.result()
        assert result.verdict not in (Verdict.ACCEPTED, Verdict.INTERNAL_ERROR), (kind, result)


def test_a_completion_that_has_the_test_program_is_accepted(judge: Judge) -> None:
    """A control: looking up is all that the spies lack."""
    for kind in ("check", "at the top", "text", "lists"):
        problem = parse_problem({"entry_point": "f", "prompt": "", "test": PROBLEMS[kind]})
        assert judge.judge(problem, _knowing(PROBLEMS[kind], "f")).verdict == Verdict.ACCEPTED


BENCHMARKS = {"humaneval/HumanEval.jsonl.gz": 164, "mbpp/mbpp_sanitized.jsonl": 427}
"""How many problems there are."""
LOOKED_UP = 0.7
"""The share that a completion passes at least that has the tests."""
EVERY = int(os.environ.get("ONLINE_REFINER_EVERY_PROBLEM", "4"))
"""Of so many problems one is tried; 1 tries all, which takes minutes."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_no_generic_completion_passes_more_of_a_benchmark_than_a_trivial_one(
    shared_data: Path, judge: Judge, name: str
) -> None:
    everything = list(_records(shared_data / name))
    records = everything[::EVERY]
    problems = {
        record["entry_point"] + str(i): parse_problem(record) for i, record in enumerate(records)
    }
    assert (len(everything), len(problems)) == (BENCHMARKS[name], len(records))
    known = {
        key: _knowing(record["test"], record["entry_point"])
        for key, record in zip(problems, records, strict=True)
    }
    assert len(_accepted(judge, problems, known)) >= LOOKED_UP * len(problems)
    easy: set[str] = set()
    for source in SOURCES["trivial"]:
        easy |= _accepted(judge, problems, _for_all(problems, source))
    for generic, source in GENERIC.items():
        accepted = _accepted(judge, problems, _for_all(problems, source))
        assert accepted <= easy, (generic, accepted - easy)


def _completion(source: str, entry: str) -> str:
    return source.replace("ENTRY", entry)


def _knowing(test: str, entry: str) -> str:
    """The completion that has been given the test program: a spy that saw it."""
    return f"def seen(): return {test!r}\n" + _completion(SOURCES["look_up"], entry)


def _for_all(problems: Mapping[str, Problem], source: str) -> dict[str, str]:
    return {key: _completion(source, problem.entry) for key, problem in problems.items()}


def _accepted(
    judge: Judge, problems: Mapping[str, Problem], programs: Mapping[str, str]
) -> set[str]:
    futures = {key: judge.submit(problems[key], code) for key, code in programs.items()}
    return {key for key, one in futures.items() if one.result().verdict == Verdict.ACCEPTED}


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        yield from map(json.loads, lines)

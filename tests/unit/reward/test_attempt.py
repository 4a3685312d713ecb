"""The decisions of one attempt, on scripted processes: chances, limits, and what is believed."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from reward.attempt import FAST_FROM, Attempt
from reward.config import JudgeConfig
from reward.problem import Problem, parse_input_output, parse_problem
from reward.sandbox.results import RunResult
from reward.sandbox.wire import End, Request
from reward.verdict import TestOutcome, Verdict

Behaviour = Callable[[list[bytes]], list[RunResult]]


class Scripted:
    """Stands for a zygote: `behaviour` says what one process does with its inputs."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[Request] = []

    def run(self, request: Request) -> list[RunResult]:
        self.requests.append(request)
        return self.behaviour(request.inputs)


def problem(tests: int) -> Problem:
    """Tests 0, 1, 2 ..., whose answers are all 1."""
    return parse_input_output({"inputs": [str(i) for i in range(tests)], "outputs": ["1"] * tests})


def attempt(behaviour: Behaviour, tests: int, **settings: Any) -> tuple[list[Any], Scripted]:
    zygote = Scripted(behaviour)
    judged = Attempt(JudgeConfig(**settings), zygote, problem(tests), "")  # type: ignore[arg-type]
    return [outcome.verdict for outcome in judged.outcomes()], zygote


def ran(output: bytes, end: End = End.OK, believed: bool = True) -> RunResult:
    return RunResult(end, "", 0.0, output, believed)


class _OutOfScript(Exception):
    pass


def acceptance(tests: int, **settings: Any) -> float:
    """The exact chance that a program is accepted that answers each test 0 or 1 by a fair coin."""

    def explore(script: tuple[int, ...]) -> float:
        flips: Iterator[int] = iter(script)

        def behaviour(inputs: list[bytes]) -> list[RunResult]:
            try:
                return [ran(b"%d" % next(flips)) for _ in inputs]
            except (StopIteration, RuntimeError) as error:
                raise _OutOfScript from error

        try:
            verdicts, _ = attempt(behaviour, tests, **settings)
        except _OutOfScript:
            return (explore((*script, 0)) + explore((*script, 1))) / 2
        return float(all(verdict == Verdict.ACCEPTED for verdict in verdicts))

    return explore(())


@pytest.mark.parametrize("tests", [1, 2, 3, 4, 5])
def test_guessing_is_worth_the_same_on_the_fast_path(tests: int) -> None:
    """A second chance comes only to a program that then passes strict mode twice."""
    strict = acceptance(tests, strict=True)
    assert strict == 0.5**tests
    assert strict <= acceptance(tests) <= strict * (1 + strict / 4)


@pytest.mark.parametrize("tests", [2, 3, 4, 5, 6])
def test_a_guesser_that_knows_its_company_has_two_guesses_at_many_tests(tests: int) -> None:
    """Its answers are two fixed ones; the right answers are any, so the judge sees all of them."""

    def accepted(answers: tuple[int, ...]) -> bool:
        def hedging(inputs: list[bytes]) -> list[RunResult]:
            alone_or_first = [int(i == 0) for i in range(len(inputs))]
            return [
                ran(b"1" if guess == answers[int(one)] else b"0")
                for guess, one in zip(alone_or_first, inputs, strict=True)
            ]

        verdicts, _ = attempt(hedging, tests)
        return all(verdict == Verdict.ACCEPTED for verdict in verdicts)

    chance = sum(map(accepted, product((0, 1), repeat=tests))) / 2**tests
    assert chance == 0.5**tests * (1 if tests < FAST_FROM else 2)
    assert chance <= 1 / 16 or tests < FAST_FROM


def test_an_answer_that_differs_alone_costs_the_fast_path() -> None:
    def hedging(inputs: list[bytes]) -> list[RunResult]:
        return [
            ran(b"1" if i == 0 or inputs[i] in (b"1", b"3") else b"0") for i in range(len(inputs))
        ]

    verdicts, zygote = attempt(hedging, 5)
    assert verdicts == [Verdict.ACCEPTED] * 5  # alone it is right
    assert [len(request.inputs) for request in zygote.requests] == [5, 1] + [1] * 10


def test_few_tests_are_run_alone() -> None:
    for tests in range(1, FAST_FROM):
        verdicts, zygote = attempt(lambda inputs: [ran(b"1")], tests)
        assert verdicts == [Verdict.ACCEPTED] * tests
        assert [len(request.inputs) for request in zygote.requests] == [1] * tests


def test_a_failure_that_is_reproduced_is_believed_and_the_rest_with_it() -> None:
    verdicts, zygote = attempt(
        lambda inputs: [ran(b"0" if i else b"1") for i in inputs_of(inputs)], 5
    )
    assert verdicts == [Verdict.ACCEPTED] + [Verdict.WRONG_ANSWER] * 4
    assert [len(request.inputs) for request in zygote.requests] == [5, 1]


def inputs_of(inputs: list[bytes]) -> list[int]:
    return [int(one) for one in inputs]


def test_a_process_that_ends_badly_proves_nothing() -> None:
    def spinning(inputs: list[bytes]) -> list[RunResult]:
        if len(inputs) == 1:
            return [ran(b"", End.TIME)]
        return [ran(b"1", believed=False) for _ in inputs]

    verdicts, zygote = attempt(spinning, 5, max_timeouts=2)
    assert verdicts[3:] == [Verdict.TIME_LIMIT] * 2
    assert [len(request.inputs) for request in zygote.requests] == [5, 1, 1]


def test_what_a_badly_ended_process_claims_never_completes_an_acceptance() -> None:
    def slow(inputs: list[bytes]) -> list[RunResult]:
        return [ran(b"1", believed=False) for _ in inputs]

    judged = Attempt(JudgeConfig(), Scripted(slow), problem(5), "")  # type: ignore[arg-type]
    judged.deadline_s = float("inf")
    original = judged._run

    def run_then_stop(group: list[int]) -> Any:
        results = original(group)
        judged.deadline_s = 0.0
        return results

    judged._run = run_then_stop  # type: ignore[method-assign]
    assert [outcome.verdict for outcome in judged.outcomes()] == [Verdict.TIME_LIMIT] * 5


def test_a_problem_at_fault_is_not_judged_again() -> None:
    judged = Attempt(
        JudgeConfig(),
        Scripted(lambda inputs: [RunResult(End.PROBLEM, "why", 0.0, b"")]),  # type: ignore[arg-type]
        parse_problem({"entry_point": "f", "test": "assert f(1)"}),
        "",
    )
    assert judged.outcomes() == [TestOutcome(Verdict.INTERNAL_ERROR, "why", 0.0, permanent=True)]


@pytest.mark.parametrize("asserts", [1, 10, 1000])
def test_assertions_never_have_more_than_the_programs_time(asserts: int) -> None:
    test = "def check(f):\n" + "    assert f(1) == 1\n" * asserts
    checked = parse_problem({"entry_point": "f", "test": test})
    config = JudgeConfig(timeout_s=4.0, program_timeout_s=5.0)
    limits = Attempt(config, None, checked, "")._limits([0])  # type: ignore[arg-type]
    assert limits.cpu_s == pytest.approx(min(4.0 * asserts, 5.0), abs=0.1)
    assert limits.total_s <= 5.0

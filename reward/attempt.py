"""One program on one problem's tests: the fast path, the re-runs, the limits.

The fast path must cost a program nothing and gain it nothing. A test that fails in company and does
otherwise alone sends the program to strict mode, where every test has one chance; and since the
fast path was a chance as well, it is accepted only if it passes strict mode twice. A program that
knows whether it has company has two guesses all the same, so that few tests, of which a guess is
likely to be right, are all run alone.
"""

import time
from dataclasses import dataclass

from reward.comparison import WALL_EXTRA_S, WALL_FACTOR, Comparison
from reward.config import JudgeConfig
from reward.problem import Problem, program_source
from reward.sandbox import suite
from reward.sandbox.client import ZygoteClient
from reward.sandbox.results import RunResult
from reward.sandbox.wire import End, Kind, Limits, Request
from reward.verdict import TestOutcome, Verdict

FAST_FROM = 5
"""With fewer tests a fast path would save little."""

PYTEST_START_S = 2.0
"""Of CPU time, for a test program that pytest runs; a tenth of it is usually enough."""

_PYTEST_WORDS = (suite.NAME, *sorted(suite.SET_UP))
_GROUP = 32
_SHRINK = 4.0
_OUTPUT_SLACK_BYTES = 65536


@dataclass(frozen=True)
class _Seen:
    """What one run of one test showed: enough to say whether a re-run agrees."""

    outcome: TestOutcome
    output: bytes


class Attempt:
    """One program on one problem's tests in one zygote."""

    def __init__(
        self, config: JudgeConfig, zygote: ZygoteClient, problem: Problem, code: str
    ) -> None:
        self.config = config
        self.zygote = zygote
        self.problem = problem
        self.comparison = Comparison(config, zygote, problem)
        self.source = program_source(problem, code).encode("utf-8", "surrogatepass")
        self.deadline_s = time.monotonic() + config.program_timeout_s
        self.time_outs = 0
        self.settled: dict[int, TestOutcome] = {}
        self.claimed: dict[int, TestOutcome] = {}
        self.failed_first: dict[int, TestOutcome] = {}

    @property
    def strict(self) -> bool:
        """Whether every test has a process of its own from the start."""
        few = len(self.problem.tests) < FAST_FROM
        return self.config.strict or few or self.problem.kind == Kind.CHECK

    def outcomes(self) -> list[TestOutcome]:
        """Per test, in order; tests that were not run count as time-outs."""
        if self.strict:
            self._strictly()
        else:
            self._fast_or_strictly()
        late = TestOutcome(Verdict.TIME_LIMIT, "not run: the program's time is used up")
        known = self.claimed | self.settled if self._failing() else self.settled
        return [known.get(i, late) for i in range(len(self.problem.tests))]

    def _fast_or_strictly(self) -> None:
        if self._fast():
            return
        if self._strictly() and not self.failed_first:
            self._strictly()
        self.settled |= self.failed_first

    def _fast(self) -> bool:
        """All tests in few processes; what does not match is run again in a process of its own.

        False if a test gave another output alone: nothing of this counts then.
        """
        doubtful: dict[int, _Seen | None] = {}
        count = len(self.problem.tests)
        for start in range(0, count, _GROUP):
            group = list(range(start, min(start + _GROUP, count)))
            if self._out_of_time():
                return True
            results = self._run(group)
            outcomes = self.comparison.outcomes(results)
            for position, index in enumerate(group):
                self._sort_in(position, index, results[index], outcomes[index], doubtful)
            if self._hopeless():
                return True
        return self._rerun(doubtful)

    def _sort_in(
        self,
        position: int,
        index: int,
        result: RunResult,
        outcome: TestOutcome,
        doubtful: dict[int, _Seen | None],
    ) -> None:
        """The first test of a process ran undisturbed, so its verdict stands, as does a pass.

        Limits are shared by all tests of a process: one that is hit later says nothing by itself.
        Where the process ended badly, what it claims of its tests decides nothing: a pass is only
        counted where the program fails anyhow.
        """
        passed = outcome.verdict == Verdict.ACCEPTED
        if not result.believed:
            doubtful[index] = None
            if passed:
                self.claimed[index] = outcome
        elif result.end != End.NOT_RUN and (position == 0 or passed):
            self._settle(index, outcome)
            if not passed:
                self.failed_first[index] = outcome
        elif result.end in (End.OK, End.EXCEPTION):
            doubtful[index] = _Seen(outcome, result.output)
        else:
            doubtful[index] = None

    def _rerun(self, doubtful: dict[int, _Seen | None]) -> bool:
        """Run doubtful tests alone until enough of the fast path's failures are reproduced.

        The last one first: what earlier tests leave behind has grown most there. False if a
        failure is not reproduced.
        """
        confirmed = 0
        for index in sorted(doubtful, reverse=True):
            if self._hopeless() or self._out_of_time():
                return True
            seen = doubtful[index]
            if seen and 0 < self.config.confirmations <= confirmed:
                self._settle(index, seen.outcome)
                continue
            result, outcome = self._run_alone(index)
            if seen and (outcome.verdict, result.output) != (seen.outcome.verdict, seen.output):
                return False
            confirmed += seen is not None
            self._settle(index, outcome)
        return True

    def _strictly(self) -> bool:
        """Every test in a process of its own; whether all pass."""
        self.settled, self.claimed, self.time_outs = {}, {}, 0
        for index in range(len(self.problem.tests)):
            if self._hopeless() or self._out_of_time():
                return False
            self._settle(index, self._run_alone(index)[1])
        return not self._failing()

    def _failing(self) -> bool:
        return any(outcome.verdict != Verdict.ACCEPTED for outcome in self.settled.values())

    def _settle(self, index: int, outcome: TestOutcome) -> None:
        self.settled[index] = outcome
        self.time_outs += outcome.verdict == Verdict.TIME_LIMIT

    def _hopeless(self) -> bool:
        """Whether no further test can change anything worth its time."""
        if self.time_outs >= self.config.max_timeouts:
            return True
        grave = (Verdict.COMPILE_ERROR, Verdict.INTERNAL_ERROR)
        return any(outcome.verdict in grave for outcome in self.settled.values())

    def _out_of_time(self) -> bool:
        return time.monotonic() >= self.deadline_s

    def _run_alone(self, index: int) -> tuple[RunResult, TestOutcome]:
        results = self._run([index])
        return results[index], self.comparison.outcomes(results)[index]

    def _run(self, group: list[int]) -> dict[int, RunResult]:
        problem = self.problem
        request = Request(
            kind=problem.kind,
            code=self.source,
            inputs=[problem.tests[i].given for i in group],
            limits=self._limits(group),
            entry=problem.entry,
        )
        return dict(zip(group, self.zygote.run(request), strict=True))

    def _limits(self, group: list[int]) -> Limits:
        cpu_s = self.config.timeout_s / (_SHRINK if self.time_outs else 1.0)
        if self.problem.kind == Kind.CHECK:
            test = self.problem.tests[0].given
            cpu_s *= max(1, test.count(b"assert"))
            cpu_s += PYTEST_START_S * any(word.encode() in test for word in _PYTEST_WORDS)
        left_s = max(0.1, self.deadline_s - time.monotonic())
        cpu_s = min(cpu_s, left_s)
        longest = max(self.problem.tests[i].expected_bytes for i in group)
        return Limits(
            cpu_s=cpu_s,
            wall_s=WALL_FACTOR * cpu_s + WALL_EXTRA_S,
            total_s=left_s,
            memory_bytes=self.config.memory_bytes,
            output_bytes=max(self.config.output_bytes, 2 * longest + _OUTPUT_SLACK_BYTES),
        )

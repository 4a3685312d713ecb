"""The judge: a problem and a program in, a verdict out. Needs neither Ray nor verl.

    with Judge() as judge:
        result = judge.judge(parse_problem(record), code)

Each worker owns one zygote (`reward.sandbox`); programs wait for a free worker. Comparison happens
here, in the trusted process: expected outputs never leave it.
"""

import asyncio
import itertools
import logging
import queue
import random
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import TracebackType

from reward.compare import result_equal, stdout_equal
from reward.config import JudgeConfig
from reward.problem import Problem, program_source
from reward.sandbox.client import SandboxError, ZygoteClient
from reward.sandbox.isolation import hide_memory
from reward.sandbox.wire import End, Kind, Level, Limits, Request, RunResult
from reward.verdict import JudgeResult, TestOutcome, Verdict, combine, score

logger = logging.getLogger(__name__)

PATIENCE = 4.0

_GUESS_S = 0.002  # per test, for a problem not seen before
_MAX_LEARNED = 100_000
_GROUP = 32
_WALL_FACTOR, _WALL_EXTRA_S = 2.0, 1.0
_SHRINK = 4.0
_OUTPUT_SLACK_BYTES = 65536
PASSED = b"passed"
_VERDICTS = {
    End.NOT_RUN: Verdict.TIME_LIMIT,
    End.EXCEPTION: Verdict.RUNTIME_ERROR,
    End.COMPILE: Verdict.COMPILE_ERROR,
    End.TIME: Verdict.TIME_LIMIT,
    End.MEMORY: Verdict.MEMORY_LIMIT,
    End.OUTPUT: Verdict.OUTPUT_LIMIT,
    End.BROKEN: Verdict.INTERNAL_ERROR,
}


class Judge:
    """Judges programs, `config.worker_count` at once; thread-safe.

    Raises:
        IsolationError: this machine reaches less than `config.min_level`.
    """

    def __init__(self, config: JudgeConfig | None = None) -> None:
        self.config = config or JudgeConfig()
        self._idle: queue.SimpleQueue[ZygoteClient | None] = queue.SimpleQueue()
        self._random = random.Random(0)
        self._closed = False
        self._lock = threading.Lock()
        self.audits = self.audit_alarms = 0
        first = self._new_zygote()
        self.level = first.level
        self.why_no_namespaces = first.why_no_namespaces
        if self.level < Level.LANDLOCK:
            hide_memory()
        self._idle.put(first)
        for _ in range(self.config.worker_count - 1):
            self._idle.put(None)
        self._queue: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._expected_s: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"judge-{i}", daemon=True)
            for i in range(self.config.worker_count)
        ]
        for thread in self._threads:
            thread.start()

    def judge(self, problem: Problem, code: str | None) -> JudgeResult:
        """The verdict on `code`; None (no program found in the answer) is a compile error."""
        return self.submit(problem, code).result()

    async def judge_async(self, problem: Problem, code: str | None) -> JudgeResult:
        """`judge` without blocking the event loop; any number may be awaited at once."""
        return await asyncio.wrap_future(self.submit(problem, code))

    def submit(self, problem: Problem, code: str | None) -> "Future[JudgeResult]":
        """Queue a program.

        Programs of problems that used to be quick go first, but none waits for ever: a program's
        turn comes by the time it was queued plus PATIENCE times the time it is expected to take.
        """
        if self._closed:
            raise RuntimeError("the judge is closed")
        guess_s = _GUESS_S * len(problem.tests)
        expected_s = self._expected_s.get(problem.problem_id, guess_s)
        future: Future[JudgeResult] = Future()
        turn = time.monotonic() + PATIENCE * expected_s
        self._queue.put(_Job(turn, next(self._numbers), future, problem, code))
        return future

    def close(self) -> None:
        """Finish what is queued, then end the zygotes."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._queue.put(_Job(float("inf"), next(self._numbers)))
        for thread in self._threads:
            thread.join()
        while not self._idle.empty():
            if zygote := self._idle.get():
                zygote.close()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _work(self) -> None:
        """A worker: judge what is queued until told to stop."""
        while True:
            job = self._queue.get()
            if job.problem is None:
                return
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                result = self._judge(job.problem, job.code)
            except BaseException as error:  # handed to whoever awaits the result
                job.future.set_exception(error)
                continue
            self._learn(job.problem, result.seconds)
            job.future.set_result(result)

    def _learn(self, problem: Problem, seconds: float) -> None:
        if len(self._expected_s) >= _MAX_LEARNED:
            self._expected_s.clear()
        known = self._expected_s.get(problem.problem_id, seconds)
        self._expected_s[problem.problem_id] = (known + seconds) / 2

    def _new_zygote(self) -> ZygoteClient:
        return ZygoteClient(
            Level(self.config.min_level),
            Level(self.config.max_level),
            [name for name in self.config.packages.split(",") if name],
        )

    def _judge(self, problem: Problem, code: str | None) -> JudgeResult:
        start = time.monotonic()
        total = len(problem.tests)
        if code is None:
            outcomes = [TestOutcome(Verdict.COMPILE_ERROR, "no program in the answer")]
        else:
            outcomes = self._attempts(problem, code)
        return self._result(outcomes, total, time.monotonic() - start)

    def _attempts(self, problem: Problem, code: str) -> list[TestOutcome]:
        """Judge, again in a fresh zygote where the judge itself fails."""
        outcomes: list[TestOutcome] = []
        for attempt in range(self.config.retries + 1):
            zygote = self._idle.get()
            try:
                zygote = zygote or self._new_zygote()
                outcomes = _Run(self.config, zygote, problem, code).outcomes()
                outcomes = self._audited(zygote, problem, code, outcomes)
            except SandboxError as error:
                outcomes = [TestOutcome(Verdict.INTERNAL_ERROR, str(error))]
            finally:
                self._idle.put(self._fit_for_more(zygote, outcomes))
            if not _failed(outcomes):
                return outcomes
            logger.warning("judging failed, attempt %d: %s", attempt + 1, outcomes[-1].detail)
        return outcomes

    def _fit_for_more(
        self, zygote: ZygoteClient | None, outcomes: list[TestOutcome]
    ) -> ZygoteClient | None:
        """The zygote, or None where it is worn out or took part in a failure."""
        if zygote is None:
            return None
        if _failed(outcomes) or zygote.requests >= self.config.recycle_after:
            zygote.close()
            return None
        return zygote

    def _audited(
        self, zygote: ZygoteClient, problem: Problem, code: str, outcomes: list[TestOutcome]
    ) -> list[TestOutcome]:
        """Judge a sample of fast acceptances again, strictly; the strict verdict counts."""
        if self.config.strict or problem.kind == Kind.CHECK:
            return outcomes
        if any(outcome.verdict != Verdict.ACCEPTED for outcome in outcomes):
            return outcomes
        with self._lock:
            chosen = self._random.random() < self.config.audit_fraction
            self.audits += chosen
        if not chosen:
            return outcomes
        strict = _Run(replace(self.config, strict=True), zygote, problem, code).outcomes()
        if any(outcome.verdict != Verdict.ACCEPTED for outcome in strict):
            with self._lock:
                self.audit_alarms += 1
            logger.warning(
                "AUDIT: a program for problem %r passed the fast path but not strict mode (%s)",
                problem.problem_id,
                combine(outcome.verdict for outcome in strict),
            )
        return strict

    def _result(self, outcomes: list[TestOutcome], total: int, seconds: float) -> JudgeResult:
        verdict = combine(outcome.verdict for outcome in outcomes)
        passed = sum(outcome.verdict == Verdict.ACCEPTED for outcome in outcomes)
        first = next((o.detail for o in outcomes if o.verdict == verdict), "")
        return JudgeResult(
            verdict=verdict,
            passed=passed,
            total=total,
            score=score(verdict, passed, total, self.config.tiers, self.config.adaptive),
            level=int(self.level),
            seconds=seconds,
            detail="" if verdict == Verdict.ACCEPTED else first,
            outcomes=tuple(outcomes),
        )


@dataclass(frozen=True, order=True)
class _Job:
    """A queued program, in the order of its turn; without a problem, the order to stop."""

    turn_s: float
    number: int
    future: "Future[JudgeResult]" = field(default_factory=Future, compare=False)
    problem: Problem | None = field(default=None, compare=False)
    code: str | None = field(default=None, compare=False)


def _failed(outcomes: list[TestOutcome]) -> bool:
    return any(outcome.verdict == Verdict.INTERNAL_ERROR for outcome in outcomes)


@dataclass(frozen=True)
class _Seen:
    """What one run of one test showed: enough to say whether a re-run agrees."""

    outcome: TestOutcome
    output: bytes


class _Run:
    """One program on one problem's tests in one zygote."""

    def __init__(
        self, config: JudgeConfig, zygote: ZygoteClient, problem: Problem, code: str
    ) -> None:
        self.config = config
        self.zygote = zygote
        self.problem = problem
        self.source = program_source(problem, code).encode("utf-8", "surrogatepass")
        self.deadline_s = time.monotonic() + config.program_timeout_s
        self.time_outs = 0
        self.settled: dict[int, TestOutcome] = {}

    def outcomes(self) -> list[TestOutcome]:
        """Per test, in order; tests that were not run count as time-outs."""
        if self.config.strict or self.problem.kind == Kind.CHECK:
            self._one_by_one(list(range(len(self.problem.tests))))
        else:
            self._fast()
        late = TestOutcome(Verdict.TIME_LIMIT, "not run: the program's time is used up")
        return [self.settled.get(i, late) for i in range(len(self.problem.tests))]

    def _fast(self) -> None:
        """All tests in few processes; what does not match is run again in a process of its own."""
        doubtful: dict[int, _Seen | None] = {}
        count = len(self.problem.tests)
        for start in range(0, count, _GROUP):
            group = list(range(start, min(start + _GROUP, count)))
            if self._out_of_time():
                return
            results = self._run(group)
            for position, index in enumerate(group):
                self._sort_in(index, position, results[index], doubtful)
            if self._hopeless():
                return
        self._rerun(doubtful)

    def _sort_in(
        self, index: int, position: int, result: RunResult, doubtful: dict[int, _Seen | None]
    ) -> None:
        """The first test of a process ran undisturbed, so its verdict stands, as does a pass.

        Limits are shared by all tests of a process: one that is hit later says nothing by itself.
        """
        outcome = self._compare(index, result)
        if result.end != End.NOT_RUN and (position == 0 or outcome.verdict == Verdict.ACCEPTED):
            self._settle(index, outcome)
        elif result.end in (End.OK, End.EXCEPTION):
            doubtful[index] = _Seen(outcome, result.output)
        else:
            doubtful[index] = None

    def _rerun(self, doubtful: dict[int, _Seen | None]) -> None:
        """Run doubtful tests alone until enough of the fast path's failures are reproduced.

        The last one first: what earlier tests leave behind has grown most there.
        """
        order = sorted(doubtful, reverse=True)
        confirmed = 0
        for index in order:
            if self._hopeless() or self._out_of_time():
                return
            seen = doubtful[index]
            if seen and 0 < self.config.confirmations <= confirmed:
                self._settle(index, seen.outcome)
                continue
            result = self._run([index])[index]
            outcome = self._compare(index, result)
            self._settle(index, outcome)
            if seen:
                same = outcome.verdict == seen.outcome.verdict and result.output == seen.output
                confirmed = confirmed + 1 if same else -len(order)

    def _one_by_one(self, indices: list[int]) -> None:
        for index in indices:
            if self._hopeless() or self._out_of_time():
                return
            self._settle(index, self._compare(index, self._run([index])[index]))

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

    def _run(self, group: list[int]) -> dict[int, RunResult]:
        problem = self.problem
        request = Request(
            kind=problem.kind,
            code=self.source,
            inputs=[problem.tests[i].given for i in group],
            groups=[list(range(len(group)))],
            limits=self._limits(group),
            entry=problem.entry,
        )
        results = self.zygote.run(request)
        return {index: results[position] for position, index in enumerate(group)}

    def _limits(self, group: list[int]) -> Limits:
        cpu_s = self.config.timeout_s / (_SHRINK if self.time_outs else 1.0)
        if self.problem.kind == Kind.CHECK:
            cpu_s *= max(1, self.problem.tests[0].given.count(b"assert"))
        cpu_s = min(cpu_s, max(0.1, self.deadline_s - time.monotonic()))
        longest = max(self.problem.tests[i].expected_bytes for i in group)
        return Limits(
            cpu_s=cpu_s,
            wall_s=_WALL_FACTOR * cpu_s + _WALL_EXTRA_S,
            memory_bytes=self.config.memory_bytes,
            output_bytes=max(self.config.output_bytes, 2 * longest + _OUTPUT_SLACK_BYTES),
        )

    def _compare(self, index: int, result: RunResult) -> TestOutcome:
        if result.end != End.OK:
            return TestOutcome(_VERDICTS[result.end], result.detail, result.cpu_s)
        test = self.problem.tests[index]
        if self.problem.kind == Kind.STDIO:
            right = stdout_equal(test.expected, result.output)
        elif self.problem.kind == Kind.CALL:
            right = result_equal(test.expected, result.output)
        else:
            right = result.output == PASSED
        verdict = Verdict.ACCEPTED if right else Verdict.WRONG_ANSWER
        detail = "" if right else result.detail
        return TestOutcome(verdict, detail, result.cpu_s)


if __name__ == "__main__":
    from reward.cli import main

    raise SystemExit(main())

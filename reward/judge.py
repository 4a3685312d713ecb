"""The judge: a problem and a program in, a verdict out. Needs neither Ray nor verl.

    with Judge() as judge:
        result = judge.judge(parse_problem(record), code)

Each worker owns one zygote (`reward.sandbox`); programs wait for a free worker. Comparison happens
here, in the trusted process: expected outputs never leave it.
"""

import asyncio
import logging
import queue
import random
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType

from reward.attempt import Attempt
from reward.config import JudgeConfig
from reward.execution import Execution, RunRequest, execute
from reward.problem import Problem
from reward.sandbox.client import SandboxError, ZygoteClient
from reward.sandbox.isolation import hide_memory
from reward.sandbox.wire import End, Level
from reward.verdict import JudgeResult, TestOutcome, Verdict, combine, score
from reward.workers import Workers

logger = logging.getLogger(__name__)

_GUESS_S = 0.002  # per test, for a problem not seen before
_MAX_LEARNED = 100_000


class Judge:
    """Judges programs, `config.worker_count` at once; thread-safe.

    Raises:
        IsolationError: this machine reaches less than `config.min_level`.
    """

    def __init__(self, config: JudgeConfig | None = None) -> None:
        self.config = config or JudgeConfig()
        self._idle: queue.SimpleQueue[ZygoteClient | None] = queue.SimpleQueue()
        self._random = random.Random(0)
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
        self._expected_s: dict[str, float] = {}
        self._workers = Workers(self.config.worker_count)

    def judge(self, problem: Problem, code: str | None) -> JudgeResult:
        """The verdict on `code`; None (no program found in the answer) is a compile error."""
        return self.submit(problem, code).result()

    async def judge_async(self, problem: Problem, code: str | None) -> JudgeResult:
        """`judge` without blocking the event loop; any number may be awaited at once."""
        return await asyncio.wrap_future(self.submit(problem, code))

    def submit(self, problem: Problem, code: str | None) -> "Future[JudgeResult]":
        """Queue a program; those of problems that used to be quick go first (see `Workers`)."""
        guess_s = _GUESS_S * len(problem.tests)
        expected_s = self._expected_s.get(problem.problem_id, guess_s)

        def work() -> JudgeResult:
            result = self._judge(problem, code)
            self._learn(problem, result.seconds)
            return result

        return self._workers.put(expected_s, work)

    def run(self, request: RunRequest) -> "Future[Execution]":
        """Queue a program to be run once, without a problem."""
        return self._workers.put(_GUESS_S, lambda: self._execute(request))

    def close(self) -> None:
        """Finish what is queued, then end the zygotes."""
        self._workers.close()
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

    def _learn(self, problem: Problem, seconds: float) -> None:
        if len(self._expected_s) >= _MAX_LEARNED:
            self._expected_s.clear()
        known = self._expected_s.get(problem.problem_id, seconds)
        self._expected_s[problem.problem_id] = (known + seconds) / 2

    def _new_zygote(self) -> ZygoteClient:
        return ZygoteClient(
            Level(self.config.min_level),
            Level(self.config.max_level),
            self.config.package_names,
        )

    def _judge(self, problem: Problem, code: str | None) -> JudgeResult:
        start = time.monotonic()
        total = len(problem.tests)
        if code is None:
            outcomes = [TestOutcome(Verdict.COMPILE_ERROR, "no program in the response")]
        else:
            outcomes = self._attempts(problem, code)
        return self._result(outcomes, total, time.monotonic() - start)

    def _attempts(self, problem: Problem, code: str) -> list[TestOutcome]:
        """Judge, again in a fresh zygote if the judge itself fails."""
        outcomes: list[TestOutcome] = []
        for attempt in range(self.config.retries + 1):
            zygote = self._idle.get()
            try:
                zygote = zygote or self._new_zygote()
                made = Attempt(self.config, zygote, problem, code)
                outcomes = made.outcomes()
                if not made.strict:
                    outcomes = self._audited(zygote, problem, code, outcomes)
            except SandboxError as error:
                outcomes = [TestOutcome(Verdict.INTERNAL_ERROR, str(error))]
            finally:
                self._idle.put(self._fit_for_more(zygote, _sandbox_failed(outcomes)))
            if not _sandbox_failed(outcomes):
                return outcomes
            logger.warning("judging failed, attempt %d: %s", attempt + 1, outcomes[-1].detail)
        return outcomes

    def _execute(self, request: RunRequest) -> Execution:
        """Run, again in a fresh zygote if the judge itself fails."""
        execution = Execution(End.BROKEN, "")
        for _ in range(self.config.retries + 1):
            zygote = self._idle.get()
            try:
                zygote = zygote or self._new_zygote()
                execution = execute(zygote, request, self.config)
            except SandboxError as error:
                execution = Execution(End.BROKEN, str(error))
            finally:
                self._idle.put(self._fit_for_more(zygote, execution.end == End.BROKEN))
            if execution.end != End.BROKEN:
                break
            logger.warning("running failed: %s", execution.detail)
        return execution

    def _fit_for_more(self, zygote: ZygoteClient | None, failed: bool) -> ZygoteClient | None:
        """The zygote, or None if it is worn out or took part in a failure."""
        if zygote is None:
            return None
        if failed or zygote.requests >= self.config.recycle_after:
            zygote.close()
            return None
        return zygote

    def _audited(
        self, zygote: ZygoteClient, problem: Problem, code: str, outcomes: list[TestOutcome]
    ) -> list[TestOutcome]:
        """Judge a sample of fast acceptances again, strictly; the strict verdict counts."""
        if any(outcome.verdict != Verdict.ACCEPTED for outcome in outcomes):
            return outcomes
        with self._lock:
            chosen = self._random.random() < self.config.audit_fraction
            self.audits += chosen
        if not chosen:
            return outcomes
        strict = Attempt(replace(self.config, strict=True), zygote, problem, code).outcomes()
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
        share = sum(outcome.share for outcome in outcomes)
        first = next((o.detail for o in outcomes if o.verdict == verdict), "")
        return JudgeResult(
            verdict=verdict,
            passed=passed,
            total=total,
            score=score(verdict, share, total, self.config.tiers, self.config.adaptive),
            level=int(self.level),
            seconds=seconds,
            detail="" if verdict == Verdict.ACCEPTED else first,
            outcomes=tuple(outcomes),
        )


def _sandbox_failed(outcomes: list[TestOutcome]) -> bool:
    """Whether the judge failed in a way that another attempt may not."""
    return any(o.verdict == Verdict.INTERNAL_ERROR and not o.permanent for o in outcomes)


if __name__ == "__main__":
    from reward.cli import main

    raise SystemExit(main())

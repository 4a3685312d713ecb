"""What judging a program yields, and the score it is worth."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The verdict on one test or on a whole program."""

    ACCEPTED = "accepted"
    WRONG_ANSWER = "wrong_answer"
    OUTPUT_LIMIT = "output_limit"
    MEMORY_LIMIT = "memory_limit"
    TIME_LIMIT = "time_limit"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    INTERNAL_ERROR = "internal_error"


# Which of several tests' verdicts is the program's: the first of these that occurs. A failure of
# the judge hides everything else, since the program was not judged.
_PRECEDENCE = (
    Verdict.INTERNAL_ERROR,
    Verdict.COMPILE_ERROR,
    Verdict.RUNTIME_ERROR,
    Verdict.TIME_LIMIT,
    Verdict.MEMORY_LIMIT,
    Verdict.OUTPUT_LIMIT,
    Verdict.WRONG_ANSWER,
)


@dataclass(frozen=True)
class Tiers:
    """Score per outcome: CodeRL (arXiv 2207.01780) and RLTF (arXiv 2307.04349).

    An output limit is a limit like the others; neither paper names it (ours).
    """

    compile_error: float = -1.0
    runtime_error: float = -0.6
    wrong_answer: float = -0.3
    accepted: float = 1.0


@dataclass(frozen=True)
class TestOutcome:
    """One test's verdict.

    Attributes:
        detail: text for people, which may come from the program.
        seconds: CPU time.
        permanent: the problem's own code is at fault, so that judging again cannot help.
        share: how much of the test is passed; a problem's own checker may say a half.
    """

    __test__ = False  # the name is no test class for pytest

    verdict: Verdict
    detail: str = ""
    seconds: float = 0.0
    permanent: bool = False
    share: float = 0.0


@dataclass(frozen=True)
class JudgeResult:
    """The verdict on one program.

    Attributes:
        passed: tests passed; those not run count as failed.
        total: tests of the problem, duplicates collapsed.
        score: the tier, see `Tiers`; 0.0 with `INTERNAL_ERROR`, which is no score.
        level: isolation level it ran under, 0 to 3.
        seconds: wall time from dispatch to verdict, without queueing.
        detail: the first failure, for people.
        outcomes: per test, in the problem's order; empty if nothing ran.
    """

    verdict: Verdict
    passed: int
    total: int
    score: float
    level: int
    seconds: float
    detail: str = ""
    outcomes: tuple[TestOutcome, ...] = ()

    @property
    def judge_failed(self) -> bool:
        """Whether the judge, not the program, failed: never to be used as a reward."""
        return self.verdict == Verdict.INTERNAL_ERROR


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The program's verdict from its tests': the gravest one; accepted if all were."""
    seen = set(verdicts)
    return next((verdict for verdict in _PRECEDENCE if verdict in seen), Verdict.ACCEPTED)


def score(verdict: Verdict, passed: float, total: int, tiers: Tiers, adaptive: bool) -> float:
    """The reward of a verdict.

    With `adaptive`, a program that runs but fails tests gets
    wrong_answer + (accepted - wrong_answer) * passed / total (after RLTF's adaptive feedback,
    restated so that it joins the accepted tier). Tests passed in part count in part.
    """
    if verdict == Verdict.INTERNAL_ERROR:
        return 0.0
    if verdict == Verdict.ACCEPTED:
        return tiers.accepted
    if verdict == Verdict.COMPILE_ERROR:
        return tiers.compile_error
    if verdict != Verdict.WRONG_ANSWER:
        return tiers.runtime_error
    share = passed / total if adaptive and total else 0.0
    return tiers.wrong_answer + (tiers.accepted - tiers.wrong_answer) * share

"""What a program's outputs are worth: compared here, or by the problem's own checker."""

from collections.abc import Mapping, Sequence
from typing import Any

from reward import jsontext
from reward.compare import DIFFERENT, parse_result, result_equal, stdout_equal
from reward.config import JudgeConfig
from reward.problem import CHECKER, Problem
from reward.sandbox.client import ZygoteClient
from reward.sandbox.results import RunResult, Score
from reward.sandbox.wire import PASSED, End, Kind, Limits, Request
from reward.verdict import TestOutcome, Verdict

WALL_FACTOR, WALL_EXTRA_S = 2.0, 1.0

_BUSY_FACTOR = 8.0
_SCORE_BYTES = 1 << 20
_VERDICTS = {
    End.NOT_RUN: Verdict.TIME_LIMIT,
    End.EXCEPTION: Verdict.RUNTIME_ERROR,
    End.COMPILE: Verdict.COMPILE_ERROR,
    End.TIME: Verdict.TIME_LIMIT,
    End.MEMORY: Verdict.MEMORY_LIMIT,
    End.OUTPUT: Verdict.OUTPUT_LIMIT,
    End.BROKEN: Verdict.INTERNAL_ERROR,
    End.PROBLEM: Verdict.INTERNAL_ERROR,
}


class Comparison:
    """From results to outcomes, for one problem; its checker runs in `zygote`."""

    def __init__(self, config: JudgeConfig, zygote: ZygoteClient, problem: Problem) -> None:
        self.config = config
        self.zygote = zygote
        self.problem = problem

    def outcomes(self, results: Mapping[int, RunResult]) -> dict[int, TestOutcome]:
        """Per test what its output is worth."""
        ended = [index for index, result in results.items() if result.end == End.OK]
        scores = self._scores(ended, results) if self.problem.checker and ended else {}
        return {
            index: _scored(scores[index], result) if index in scores else self._plain(index, result)
            for index, result in results.items()
        }

    def _plain(self, index: int, result: RunResult) -> TestOutcome:
        if result.end != End.OK:
            permanent = result.end == End.PROBLEM
            return TestOutcome(_VERDICTS[result.end], result.detail, result.cpu_s, permanent)
        test = self.problem.tests[index]
        if self.problem.kind == Kind.STDIO:
            right = stdout_equal(test.expected, result.output)
        elif self.problem.kind == Kind.CALL:
            right = result_equal(test.expected, result.output)
        else:
            right = result.output == PASSED.encode()
        verdict = Verdict.ACCEPTED if right else Verdict.WRONG_ANSWER
        detail = "" if right else result.detail
        return TestOutcome(verdict, detail, result.cpu_s, share=float(right))

    def _scores(self, indices: Sequence[int], results: Mapping[int, RunResult]) -> dict[int, Score]:
        """What the problem's own checker says of these outputs; those that are no value fail."""
        cases = {index: self._case(index, results[index].output) for index in indices}
        sent = [case for case in cases.values() if case is not None]
        cpu_s = self.config.checker_timeout_s * max(1, len(sent))
        request = Request(
            kind=Kind.SCORE,
            code=self.problem.checker.encode("utf-8", "surrogatepass"),
            inputs=[jsontext.dumps(sent).encode()],
            limits=Limits(
                cpu_s=cpu_s,
                wall_s=WALL_FACTOR * cpu_s + WALL_EXTRA_S,
                total_s=_BUSY_FACTOR * (WALL_FACTOR * cpu_s + WALL_EXTRA_S),
                memory_bytes=self.config.memory_bytes,
                output_bytes=_SCORE_BYTES,
            ),
            entry=CHECKER,
        )
        found = iter(self.zygote.score(request, len(sent)) if sent else ())
        return {
            index: Score(0.0, End.OK, "") if case is None else next(found)
            for index, case in cases.items()
        }

    def _case(self, index: int, output: bytes) -> list[Any] | None:
        """[input, output, answer] as the checker is given them; None if the output is none."""
        test = self.problem.tests[index]
        if self.problem.kind == Kind.STDIO:
            given = test.given.decode("utf-8", "surrogatepass")
            return [given, output.decode("utf-8", "replace"), test.expected]
        value = parse_result(test.expected, output)
        return None if value is DIFFERENT else [jsontext.loads(test.given), value, test.expected]


def _scored(score: Score, result: RunResult) -> TestOutcome:
    if score.value is None:
        permanent = score.end == End.PROBLEM
        return TestOutcome(Verdict.INTERNAL_ERROR, score.detail, result.cpu_s, permanent)
    verdict = Verdict.ACCEPTED if score.value == 1 else Verdict.WRONG_ANSWER
    return TestOutcome(verdict, "", result.cpu_s, share=score.value)

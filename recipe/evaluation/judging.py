"""From samples to verdicts on disk, in the judge's sandbox; nothing is run in this process."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.files import Log
from recipe.evaluation.kinds import EvalProblem
from recipe.evaluation.protocols import EvalProtocol, program_in
from recipe.evaluation.sanitise import well_formed
from reward.extract import Extract
from reward.judge import Judge
from reward.verdict import JudgeResult, Verdict

_AHEAD = 8  # programs submitted but not yet written, per worker of the judge


@dataclass(frozen=True)
class Judged:
    """One sample's verdict.

    Attributes:
        formed: format, as opposed to skill: a program was found in the response, it parses, and
            defines the entry point with a body. True of every accepted program.
        passed, total: tests.
        score: the tier of `reward.verdict.Tiers`.
        finish: why the response ended, as the engine says.
    """

    problem_id: str
    sample: int
    formed: bool
    verdict: str
    passed: int
    total: int
    score: float
    difficulty: str = ""
    finish: str = ""
    program: str | None = None

    @property
    def right(self) -> bool:
        return self.verdict == Verdict.ACCEPTED


def judge_missing(
    problems: Iterable[EvalProblem],
    protocol: EvalProtocol,
    samples: Sequence[Mapping[str, Any]],
    log: Log,
    judge: Judge,
    title: str,
) -> int:
    """Judge the samples of `problems` that the log does not have; the number that could not be.

    Where the judge itself fails nothing is saved, so that the next call judges that sample again:
    it is neither right nor wrong.
    """
    by_id = {problem.problem_id: problem for problem in problems}
    known = {(v.problem_id, v.sample) for v in judged_in(log.records(), log.path)}
    todo = [
        sample
        for sample in samples
        if sample["problem_id"] in by_id and (sample["problem_id"], sample["sample"]) not in known
    ]
    failed, how = 0, Extract(judge.config.extract)
    waiting: deque[tuple[Mapping[str, Any], str | None, Future[JudgeResult]]] = deque()
    with tqdm(total=len(todo), desc=f"{title}: judging", unit="program", disable=None) as bar:

        def save_first() -> bool:
            sample, program, future = waiting.popleft()
            result = future.result()
            bar.update()
            if not result.judge_failed:
                problem = by_id[sample["problem_id"]]
                log.append(asdict(_judged(problem, sample, program, result)))
            return result.judge_failed

        for sample in todo:
            problem = by_id[sample["problem_id"]]
            program = program_in(protocol, problem, sample["completion"], how)
            waiting.append((sample, program, judge.submit(problem.judged, program)))
            if len(waiting) >= _AHEAD * judge.config.worker_count:
                failed += save_first()
        while waiting:
            failed += save_first()
    return failed


def judged_in(records: Iterable[Mapping[str, Any]], path: Path) -> list[Judged]:
    """The verdicts of a log's records, each (problem, sample) once.

    Raises:
        EvaluationError: a record of another form.
    """
    found: dict[tuple[str, int], Judged] = {}
    for record in records:
        try:
            verdict = Judged(**record)
        except TypeError as error:
            raise EvaluationError(f"{path}: no verdict ({error}); delete the file") from error
        found.setdefault((verdict.problem_id, verdict.sample), verdict)
    return list(found.values())


def _judged(
    problem: EvalProblem, sample: Mapping[str, Any], program: str | None, result: JudgeResult
) -> Judged:
    right = result.verdict == Verdict.ACCEPTED
    return Judged(
        problem_id=problem.problem_id,
        sample=sample["sample"],
        formed=right or well_formed(program, problem.entry_point),
        verdict=str(result.verdict),
        passed=result.passed,
        total=result.total,
        score=result.score,
        difficulty=problem.difficulty,
        finish=str(sample.get("finish", "")),
        program=program,
    )

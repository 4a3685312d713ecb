"""One evaluation: what is missing is generated, then judged, then everything is scored."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recipe.evaluation.errors import EvaluationError, Unanswered
from recipe.evaluation.files import only_writer
from recipe.evaluation.folder import Asked, Folder
from recipe.evaluation.generate import Engine, Sampling, generate_missing, missing
from recipe.evaluation.judging import judge_missing, judged_in
from recipe.evaluation.kinds import Benchmark, EvalProblem, MbppSplit
from recipe.evaluation.problems import ProblemSet
from recipe.evaluation.protocols import EvalProtocol, protocols_for
from recipe.evaluation.results import Scores, score
from reward.config import JudgeConfig
from reward.judge import Judge


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        limit: takes the first problems of each benchmark only.
        mbpp_split: takes these problems of MBPP only; MBPP+ is always whole, as at evalplus.
        chat_options: of the chat template, for protocols that ask in a chat.
    """

    model: str
    sampling: Sampling
    sets: tuple[ProblemSet, ...]
    protocols: tuple[str, ...]
    ks: tuple[int, ...]
    limit: int | None
    judge: JudgeConfig
    mbpp_split: MbppSplit = MbppSplit.ALL
    chat_options: Mapping[str, Any] = field(default_factory=dict)

    def parts(self) -> Iterator[tuple[ProblemSet, EvalProtocol, tuple[EvalProblem, ...]]]:
        """Every benchmark under every protocol that applies to it, with the problems taken."""
        for problems in self.sets:
            for protocol in protocols_for(problems.benchmark.family, self.protocols):
                yield problems, protocol, self._in_split(problems)[: self.limit]

    def asked(self) -> Asked:
        """What the folder is to remember."""
        sizes = {str(one.benchmark): len(self._in_split(one)) for one in self.sets}
        return Asked(
            self.model, self.sampling, str(self.mbpp_split), self.limit, sizes, self.chat_options
        )

    def _in_split(self, problems: ProblemSet) -> tuple[EvalProblem, ...]:
        """The problems of a benchmark that are evaluated if there is no limit.

        Raises:
            EvaluationError: there is none.
        """
        found = problems.problems
        if problems.benchmark == Benchmark.MBPP:
            found = tuple(p for p in found if self.mbpp_split.has(p.problem_id))
        if not found:
            raise EvaluationError(
                f"--mbpp-split {self.mbpp_split}: {problems.path} has no problem with such a "
                "number; use all, or the file with that split"
            )
        return found


def evaluate(plan: Plan, make_engine: Callable[[], Engine], folder: Folder) -> list[Scores]:
    """Carry out `plan` in `folder`, going on where an earlier call stopped."""
    with only_writer(folder.path):
        folder.remember(plan.asked(), plan.sets)
        folder.remember_judge(plan.judge)
        for problems in plan.sets:
            if problems.quarantined:
                _say(
                    f"{problems.benchmark}: {len(problems.quarantined)} records left out, see "
                    f"{folder.path / 'quarantine.jsonl'}"
                )
        _generate(plan, make_engine, folder)
        scores = _judge(plan, folder)
        folder.write_scores(scores)
    return scores


def _generate(plan: Plan, make_engine: Callable[[], Engine], folder: Folder) -> None:
    """Generate what is missing. The engine is made only then, and every protocol is tried on one
    prompt first, so that a model without a chat template is refused at once.
    """
    jobs = []
    for problems, protocol, chosen in plan.parts():
        log = folder.samples(problems.benchmark, protocol.name)
        wanted = missing(chosen, plan.sampling.samples, log)
        kept = len(chosen) * plan.sampling.samples - len(wanted)
        title = f"{problems.benchmark}, {protocol.name}"
        if kept or log.torn:
            torn = "; a torn last line was dropped" if log.torn else ""
            _say(f"{title}: {kept} samples are there, {len(wanted)} to go{torn}")
        if wanted:
            jobs.append((wanted, protocol, log, title))
    if not jobs:
        return
    engine = make_engine()
    folder.remember_engine(engine)
    for wanted, protocol, _, _ in jobs:
        engine.render(protocol.prompt(wanted[0][0]))
    unanswered = []
    for wanted, protocol, log, title in jobs:
        try:
            generate_missing(wanted, protocol, plan.sampling, engine, log, title)
        except Unanswered as error:
            unanswered.append(f"{title}: {error}")
    if unanswered:
        raise Unanswered("\n".join(unanswered))


def _judge(plan: Plan, folder: Folder) -> list[Scores]:
    scores = []
    with Judge(plan.judge) as judge:
        for problems, protocol, chosen in plan.parts():
            name, title = str(problems.benchmark), f"{problems.benchmark}, {protocol.name}"
            samples = folder.samples(name, protocol.name).records()
            log = folder.verdicts(name, protocol.name)
            failed = judge_missing(chosen, protocol, samples, log, judge, title)
            if failed:
                _say(
                    f"{title}: the judge failed on {failed} samples, which count neither as right "
                    "nor as wrong; run the same command again to judge them"
                )
            verdicts = judged_in(log.records(), log.path)
            unasked = sum(verdict.finish == "prompt_too_long" for verdict in verdicts)
            if unasked:
                _say(f"{title}: {unasked} prompts were too long for the model and count as failed")
            folder.write_programs(name, protocol.name, verdicts)
            scores.append(score(name, protocol.name, verdicts, plan.ks))
    return scores


def _say(text: str) -> None:
    print(text, file=sys.stderr)

"""Judge, refine, judge again: what happens to one rollout once it is finished.

Knows nothing of verl: the agent loop hands in the scoring function and the refiner's client. Both
exact savings live here: a perfect rollout is not refined, a verbatim refinement is not judged.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from recipe.online_refiner.constraint import Filter, accepts
from recipe.online_refiner.episodes import SKIPPED_PERFECT, UNJUDGED, RefineRecord
from refiner_worker.client import Outcome, Refinement, RefinerClient, RefineTask
from refiner_worker.diff import token_diff

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """The judge's word on one response: its unshaped reward, and whether there is one at all."""

    reward: float
    verdict: str = ""
    judged: bool = True


@dataclass(frozen=True)
class Rollout:
    """A finished and judged rollout: the prompt as chat messages, T answer ids, its score.

    `feedback` is what the refiner is told of the score, `step` the training step it is made for.
    """

    messages: Sequence[Mapping[str, str]]
    answer_ids: Sequence[int]
    score: Score
    feedback: str = ""
    step: int = 0


Scorer = Callable[[Sequence[int]], Awaitable[Score]]


class StepClock:
    """When refining for a step ends: so many seconds after its first rollout was judged here.

    Args:
        limit_s: the seconds; None for no end.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._step = -1
        self._until_s = 0.0

    def until_s(self, step: int) -> float | None:
        """The event loop's time at which `step` ends; the first call for a step starts it."""
        if self._limit_s is None:
            return None
        if step > self._step:
            self._step = step
            self._until_s = asyncio.get_running_loop().time() + self._limit_s
        return self._until_s


class Refining:
    """Refines rollouts by one client and one acceptance rule.

    Args:
        client: asks the refiner.
        rule: the filter between R(a') and R(a).
        perfect_reward: the task's highest reward, at which a rollout is not refined; None where
            the reward has no maximum (a learned reward model).
        step_deadline_s: see `StepClock`.
    """

    def __init__(
        self,
        client: RefinerClient,
        rule: Filter,
        perfect_reward: float | None,
        step_deadline_s: float | None = None,
    ) -> None:
        self._client = client
        self._rule = rule
        self._perfect_reward = perfect_reward
        self._clock = StepClock(step_deadline_s)

    async def refine(self, rollout: Rollout, score: Scorer) -> RefineRecord:
        """Refine one rollout; never raises for what happens to a single sample."""
        started_s = time.time()
        until_s = self._clock.until_s(rollout.step)
        record = RefineRecord(
            outcome=SKIPPED_PERFECT,
            reward=rollout.score.reward,
            verdict=rollout.score.verdict,
            judged_at_s=started_s,
            finished_at_s=started_s,
        )
        if not rollout.score.judged:
            return replace(record, outcome=UNJUDGED)
        if self._is_perfect(rollout.score.reward):
            return record
        refinement = await self._client.refine(
            RefineTask(rollout.messages, rollout.answer_ids, rollout.feedback, until_s)
        )
        record = self._described(record, refinement, rollout)
        if refinement.outcome is Outcome.REFINED:
            try:
                async with asyncio.timeout_at(until_s):
                    record = self._judged(record, await _score_or_unjudged(score, refinement))
            except TimeoutError:
                late = replace(refinement, outcome=Outcome.STEP_DEADLINE, token_ids=())
                record = self._described(record, late, rollout)
        return replace(record, finished_at_s=time.time())

    def _is_perfect(self, reward: float) -> bool:
        return self._perfect_reward is not None and reward >= self._perfect_reward

    def _described(
        self, record: RefineRecord, refinement: Refinement, rollout: Rollout
    ) -> RefineRecord:
        diff = token_diff(rollout.answer_ids, refinement.token_ids)
        verbatim = refinement.outcome is Outcome.VERBATIM
        return replace(
            record,
            outcome=str(refinement.outcome),
            token_ids=refinement.token_ids,
            copied=diff.copied,
            divergence=diff.divergence,
            sources=diff.sources,
            edit_distance=diff.edit_distance if refinement.token_ids else 0,
            generated_tokens=refinement.generated_tokens,
            engine_calls=refinement.engine_calls,
            scored_tokens=refinement.scored_tokens,
            refined_reward=record.reward if verbatim else None,
            refined_verdict=record.verdict if verbatim else "",
            accepted=verbatim and accepts(record.reward, record.reward, self._rule),
        )

    def _judged(self, record: RefineRecord, score: Score) -> RefineRecord:
        if not score.judged:
            return replace(record, outcome=UNJUDGED)
        return replace(
            record,
            refined_reward=score.reward,
            refined_verdict=score.verdict,
            accepted=accepts(record.reward, score.reward, self._rule),
        )


async def _score_or_unjudged(score: Scorer, refinement: Refinement) -> Score:
    try:
        return await score(refinement.token_ids)
    except Exception:
        # Judging runs untrusted text through a user's reward function in another process; a
        # refinement that cannot be judged is dropped, and the rollout it belongs to is kept.
        logger.exception("a refinement could not be judged; its rollout goes on unconstrained")
        return Score(reward=0.0, judged=False)

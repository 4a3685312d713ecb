"""Judge, refine, judge again: what happens to one rollout once it is finished.

Knows nothing of verl: the agent loop hands in the scoring function and the refiner's client. Both
exact savings live here: a perfect rollout is not refined, a verbatim refinement is not judged.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from recipe.online_refiner.choices import Filter
from recipe.online_refiner.method.maths import accepts
from recipe.online_refiner.records import SKIPPED_PERFECT, UNJUDGED, Refinement, Score
from refiner_worker.client import Outcome, RefinerClient, RefinerReply, RefineTask
from refiner_worker.diff import token_diff

logger = logging.getLogger(__name__)

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
        perfect_reward: the task's highest reward, at which a rollout is not refined; None if
            the reward has no maximum (a learned reward model).
        step_deadline_s: see `StepClock`.
        top_tokens: how many of the refiner's likeliest tokens an accepted refinement gets for each
            of its own; 0 for none.
    """

    def __init__(
        self,
        client: RefinerClient,
        rule: Filter,
        perfect_reward: float | None,
        step_deadline_s: float | None = None,
        top_tokens: int = 0,
    ) -> None:
        self._client = client
        self._rule = rule
        self._perfect_reward = perfect_reward
        self._clock = StepClock(step_deadline_s)
        self._top_tokens = top_tokens

    async def refine(self, task: RefineTask, score: Score, step: int, scorer: Scorer) -> Refinement:
        """Refine one rollout; never raises for what happens to a single sample.

        Args:
            task: the rollout; when its step ends is filled in here.
            score: of the rollout. step: the training step it is made for.
            scorer: judges the refined response.
        """
        started_s = time.time()
        until_s = self._clock.until_s(step)
        found = Refinement(
            outcome=SKIPPED_PERFECT,
            reward=score.reward,
            verdict=score.verdict,
            judged_at_s=started_s,
            finished_at_s=started_s,
        )
        if not score.judged:
            return replace(found, outcome=UNJUDGED)
        if self._is_perfect(score.reward):
            return found
        reply = await self._client.refine(replace(task, until_s=until_s))
        found = self._described(found, reply, task.answer_ids)
        if reply.outcome is Outcome.REFINED:
            try:
                async with asyncio.timeout_at(until_s):
                    found = self._judged(found, await _score_or_unjudged(scorer, reply))
            except TimeoutError:
                late = replace(reply, outcome=Outcome.STEP_DEADLINE, token_ids=())
                found = self._described(found, late, task.answer_ids)
        if found.accepted and self._top_tokens:
            found = await self._with_top_tokens(found, reply, until_s)
        return replace(found, finished_at_s=time.time())

    async def _with_top_tokens(
        self, found: Refinement, reply: RefinerReply, until_s: float | None
    ) -> Refinement:
        """The refinement with the refiner's distributions, and what they cost."""
        top = await self._client.top_tokens(reply, self._top_tokens, until_s)
        if top is None:
            return found
        return replace(
            found,
            top_tokens=top,
            engine_calls=found.engine_calls + 1,
            generated_tokens=found.generated_tokens + 1,
            scored_tokens=found.scored_tokens + top.end - top.start,
        )

    def _is_perfect(self, reward: float) -> bool:
        return self._perfect_reward is not None and reward >= self._perfect_reward

    def _described(
        self, found: Refinement, reply: RefinerReply, response_ids: Sequence[int]
    ) -> Refinement:
        diff = token_diff(response_ids, reply.token_ids)
        verbatim = reply.outcome is Outcome.VERBATIM
        return replace(
            found,
            outcome=str(reply.outcome),
            token_ids=reply.token_ids,
            copied=diff.copied,
            divergence=diff.divergence,
            sources=diff.sources,
            edit_distance=diff.edit_distance if reply.token_ids else 0,
            generated_tokens=reply.generated_tokens,
            engine_calls=reply.engine_calls,
            scored_tokens=reply.scored_tokens,
            refined_reward=found.reward if verbatim else None,
            refined_verdict=found.verdict if verbatim else "",
            accepted=verbatim and accepts(found.reward, found.reward, self._rule),
        )

    def _judged(self, found: Refinement, score: Score) -> Refinement:
        if not score.judged:
            return replace(found, outcome=UNJUDGED)
        return replace(
            found,
            refined_reward=score.reward,
            refined_verdict=score.verdict,
            accepted=accepts(found.reward, score.reward, self._rule),
        )


async def _score_or_unjudged(scorer: Scorer, reply: RefinerReply) -> Score:
    try:
        return await scorer(reply.token_ids)
    except Exception:
        # Judging runs untrusted text through a user's reward function in another process; a
        # refinement that cannot be judged is dropped, and its rollout is trained on without one.
        logger.exception("a refinement could not be judged; its rollout goes on unconstrained")
        return Score(reward=0.0, judged=False)

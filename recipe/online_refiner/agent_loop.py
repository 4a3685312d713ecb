"""verl's agent loop with refinement: as soon as a rollout is judged it is refined and judged again.

Both results are put into the TransferQueue in one write, so the trainer never sees half a row;
joined late (`refiner.late_join`), the rollout is put there at once, and the trainer asks the
workers for its refinement when it reads it. The refiner's client is delivered after the workers are
made (`RefiningManager.set_refiner`).
"""

import logging
from collections.abc import Sequence
from typing import Any

import ray
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from recipe.online_refiner.choices import (
    FAILING_TEST_KEY,
    JUDGE_FAILED_KEY,
    REFINABLE,
    REFINEMENT_KEY,
    Feedback,
)
from recipe.online_refiner.method.groups import filters_groups
from recipe.online_refiner.plan import RefiningPlan
from recipe.online_refiner.queue.judged_groups import tag_unjudged
from recipe.online_refiner.records import Refinement, Score
from recipe.online_refiner.refine.feedback import feedback_text
from recipe.online_refiner.refine.late import LateRefinements
from recipe.online_refiner.refine.refining import Refining
from recipe.online_refiner.resolve.chat import policy_chat
from recipe.online_refiner.resolve.refiner_engine import end_ids
from recipe.online_refiner.run.console import show_our_log
from recipe.online_refiner.scores import ScoreError, group_value, score_of, settle_score
from refiner_worker.client import Generator, RefinerClient, RefineTask
from refiner_worker.engine import sampling_extra
from refiner_worker.prompts import load_template

logger = logging.getLogger(__name__)


class _RefiningWorker(AgentLoopWorkerTQ.__ray_actor_class__):
    """One agent-loop worker; see the module. The hook is called once for each finished rollout."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Not only for the attribute: Ray ships inherited methods by value, and verl's __init__,
        # shipped so, would call super() on a copy of its class that this object is no instance of.
        super().__init__(*args, **kwargs)
        show_our_log()
        self._refining: Refining | None = None
        self._late: LateRefinements | None = None
        self._feedback = Feedback.NONE

    def set_refiner(self, generator: Generator, plan: RefiningPlan) -> None:
        """Refine from now on. Called once, before the first rollout."""
        refiner = plan.refiner
        client = RefinerClient(
            generator,
            policy_chat(self.config, self.tokenizer, self.model_config.local_path),
            load_template(refiner.template),
            plan.limits,
            refiner.temperature,
            plan.decoding,
            end_ids=end_ids(refiner.model_path) if refiner.model_path else (),
            sampling_extra=sampling_extra(plan.engine),
        )
        self._feedback = refiner.feedback
        self._late = LateRefinements() if plan.joins_late else None
        self._refining = Refining(
            client,
            plan.filter,
            refiner.perfect_reward,
            refiner.step_deadline_s,
            top_tokens=plan.top_tokens,
        )

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput | list[AgentLoopOutput], validate: bool, **kwargs: Any
    ) -> None:
        outputs = output if isinstance(output, list) else [output]
        unjudged: list[str] = []
        if outputs:
            await self._compute_score(outputs, kwargs=kwargs)
            extras = outputs[-1].extra_fields.get("reward_extra_info", {})
            # The test is for the refiner alone: logs and dumps would show the expected output.
            test = {FAILING_TEST_KEY: extras.pop(FAILING_TEST_KEY, "")}
            if not validate:
                await self._settle(outputs, extras, test, kwargs)
                unjudged = _row_keys(outputs, kwargs) if extras.get(JUDGE_FAILED_KEY) else []
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        if unjudged and filters_groups(self.config):
            # Not before the rows are stored; verl calls their group finished after this.
            await tag_unjudged(unjudged)

    async def late_refinements(self, step: int) -> dict[str, Refinement]:
        """What became of this worker's rollouts of a step, by row; waits for the last of them."""
        return {} if self._late is None else await self._late.of_step(step)

    async def _settle(
        self,
        outputs: Sequence[AgentLoopOutput],
        extras: dict[str, Any],
        test: dict[str, str],
        kwargs: dict[str, Any],
    ) -> None:
        """Tell the rollout's score, and have it refined before or after its row is stored."""
        output = outputs[-1]
        try:
            score = settle_score(extras)
        except ScoreError:
            # Raised here it would only mark the group as failed; the trainer, which reads the row,
            # ends the run by it.
            logger.exception("a rollout has no score")
            return
        if not score.judged:
            output.response_mask = [0] * len(output.response_ids)
        feedback = feedback_text(self._feedback, extras | test, score)
        refined = self._refine(output, score, feedback, kwargs)
        if self._late is not None:
            key = _row_keys(outputs, kwargs)[-1]
            self._late.start(int(kwargs["global_steps"]), key, refined)
            return
        refinement = await refined
        if refinement is not None:
            output.extra_fields[REFINEMENT_KEY] = refinement.to_row()
            self._tell_group_filter(output, refinement.accepted, int(kwargs["session_id"]))

    async def _refine(
        self, output: AgentLoopOutput, score: Score, feedback: str, kwargs: dict[str, Any]
    ) -> Refinement | None:
        """The refinement of one rollout of the training; None if the run does not refine."""
        if self._refining is None:
            return None

        async def judge(token_ids: Sequence[int]) -> Score:
            refined = AgentLoopOutput(
                prompt_ids=output.prompt_ids,
                response_ids=list(token_ids),
                response_mask=[1] * len(token_ids),
                num_turns=output.num_turns,
                metrics=AgentLoopMetrics(),
                extra_fields={},
            )
            await self._compute_score([refined], kwargs=kwargs)
            return score_of(refined.extra_fields["reward_extra_info"])

        task = RefineTask(list(kwargs["raw_prompt"]), output.response_ids, feedback)
        return await self._refining.refine(task, score, int(kwargs["global_steps"]), judge)

    def _tell_group_filter(self, output: AgentLoopOutput, accepted: bool, session: int) -> None:
        """Write the metric by which an accepted refinement keeps a group of equal rewards."""
        metric = str((self.config.algorithm.get("filter_groups") or {}).get("metric"))
        if not metric.startswith(REFINABLE):
            return
        extras = output.extra_fields["reward_extra_info"]
        try:
            value = group_value(extras, metric.removeprefix(REFINABLE), output.reward_score)
        except ScoreError:
            # As above: verl ends the run where it reads the metric.
            logger.exception("dynamic sampling has nothing to compare")
            return
        extras[metric] = refinable(value, accepted, session)


def _row_keys(outputs: Sequence[AgentLoopOutput], kwargs: dict[str, Any]) -> list[str]:
    """The keys under which verl stores the rows of one session."""
    session = f"{kwargs['uid']}_{kwargs['session_id']}"
    return [f"{session}_{index}" for index in range(len(outputs))]


def refinable(value: float, accepted: bool, session: int) -> float:
    """The group filter's value of one rollout: apart from every other's if it is accepted.

    verl drops groups whose values are all the same; sessions of a group count from 0.
    """
    return value + (session + 1) * 1e-3 if accepted else value


class RefiningManager(AgentLoopManagerTQ):
    """verl's agent-loop manager with refining workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(_RefiningWorker)

    def set_refiner(self, generator: Generator, plan: RefiningPlan) -> None:
        """Deliver the refiner to every worker; returns once all have it."""
        workers = self.agent_loop_workers
        ray.get([worker.set_refiner.remote(generator, plan) for worker in workers])

    def late_refinements(self, step: int) -> dict[str, Refinement]:
        """The refinements of a step's rollouts by row, if they are joined late; waits for them."""
        asked = [worker.late_refinements.remote(step) for worker in self.agent_loop_workers]
        return {key: one for found in ray.get(asked) for key, one in found.items()}

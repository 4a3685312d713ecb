"""What the agent loop makes of a judged rollout, whichever way its reward function speaks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from recipe.online_refiner.agent_loop import _RefiningWorker
from recipe.online_refiner.choices import REFINEMENT_KEY, Feedback, Filter
from recipe.online_refiner.refine.late import LateRefinements
from recipe.online_refiner.refine.refining import Refining
from refiner_worker.client import Outcome, RefinerReply, RefineTask

ROW = {
    "uid": "a",
    "session_id": 1,
    "global_steps": 3,
    "raw_prompt": [{"role": "user", "content": "sum"}],
}
METRIC = "refinable_score"


class Client:
    """Refines every rollout alike, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def refine(self, task: RefineTask) -> RefinerReply:
        self.told.append(task.feedback)
        return RefinerReply(Outcome.REFINED, (1, 9), generated_tokens=2, engine_calls=1)


class Worker(_RefiningWorker):
    """Ours without verl's constructor, which wants a cluster; a' is judged as given."""

    def __init__(self, refined: dict[str, Any], late: bool = False) -> None:
        self.client, self._refined = Client(), refined
        self._refining = Refining(self.client, Filter.BETTER, 1.0)  # type: ignore[arg-type]
        self._feedback = Feedback.VERDICT
        self._late = LateRefinements() if late else None
        self.config = OmegaConf.create({"algorithm": {"filter_groups": {"metric": METRIC}}})

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: Any) -> None:
        outputs[-1].extra_fields["reward_extra_info"] = dict(self._refined)


def output(extras: dict[str, Any], shaped: float) -> AgentLoopOutput:
    return AgentLoopOutput(
        prompt_ids=[7],
        response_ids=[1, 2],
        response_mask=[1, 1],
        reward_score=shaped,
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={"reward_extra_info": extras},
    )


def settled(worker: Worker, one: AgentLoopOutput) -> dict[str, Any]:
    extras = one.extra_fields["reward_extra_info"]
    asyncio.run(worker._settle([one], extras, {}, ROW))
    return extras


@pytest.mark.parametrize("name", ["acc", "score"])
@pytest.mark.parametrize(("refined", "accepted"), [(0.5, False), (0.75, True)])
def test_rewards_are_compared_without_the_length_penalty(
    name: str, refined: float, accepted: bool
) -> None:
    """The rollout's 0.5 lost 0.8 for its length; a refinement of 0.5 is no better for that."""
    worker, one = Worker({name: refined}), output({name: 0.5}, shaped=-0.3)
    extras = settled(worker, one)
    refinement = one.extra_fields[REFINEMENT_KEY]
    assert (refinement["reward"], refinement["refined_reward"]) == (0.5, refined)
    assert refinement["accepted"] is accepted
    assert extras["score"] == 0.5
    # Of session 1; apart from an equal reward of the group if it is accepted.
    assert extras[METRIC] == pytest.approx(0.502 if accepted else 0.5)
    assert worker.client.told == ["Score: 0.5."]


def test_a_rollout_without_a_verdict_is_masked_and_not_refined() -> None:
    worker, one = Worker({"acc": 1.0}), output({"acc": 0.0, "timeout": True}, shaped=0.0)
    extras = settled(worker, one)
    assert one.response_mask == [0, 0]
    assert one.extra_fields[REFINEMENT_KEY]["outcome"] == "unjudged"
    assert (extras["judge_failed"], worker.client.told) == (1.0, [])


def test_a_rollout_whose_score_cannot_be_told_is_left_for_the_trainer_to_name() -> None:
    worker, one = Worker({"acc": 1.0}), output({"reward": 0.5}, shaped=0.5)
    assert settled(worker, one) == {"reward": 0.5}
    assert REFINEMENT_KEY not in one.extra_fields


def test_joined_late_the_row_is_stored_bare_and_its_refinement_waits_for_the_trainer() -> None:
    worker, one = Worker({"acc": 0.75}, late=True), output({"acc": 0.5}, shaped=-0.3)

    async def run() -> dict[str, Any]:
        extras = one.extra_fields["reward_extra_info"]
        await worker._settle([one], extras, {}, ROW)
        assert REFINEMENT_KEY not in one.extra_fields
        return await worker.late_refinements(3)

    found = asyncio.run(run())
    assert list(found) == ["a_1_0"]
    assert (found["a_1_0"].reward, found["a_1_0"].accepted) == (0.5, True)

"""One rollout through the agent loop's hook: judged, refined, judged again, and told to verl."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import transfer_queue as tq
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from recipe.online_refiner.agent_loop import _RefiningWorker, refinable
from recipe.online_refiner.choices import Feedback, Filter
from recipe.online_refiner.refine.refining import Refining
from refiner_worker.client import Outcome, RefinerReply, RefineTask

SHAPED = -0.25
"""What a length penalty takes from the reward that verl trains on."""
VERDICTS: dict[tuple[int, ...], dict[str, Any]] = {
    (1, 2, 3): {"score": 0.0, "verdict": "wrong_answer", "failing_test": "2 + 2"},
    (1, 9, 3): {"score": 0.1, "verdict": "better", "failing_test": "2 + 2"},
    (4,): {"judge_failed": 1, "score": 0.0},
}


class Client:
    """A refiner that always writes the same."""

    def __init__(self) -> None:
        self.tasks: list[RefineTask] = []

    async def refine(self, task: RefineTask) -> RefinerReply:
        self.tasks.append(task)
        return RefinerReply(Outcome.REFINED, (1, 9, 3))


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[AgentLoopOutput]:
    """What verl's own hook is given, which puts it into the queue."""
    found: list[AgentLoopOutput] = []

    async def put(self: Any, output: Any, validate: bool, **kwargs: Any) -> None:
        found.extend(output if isinstance(output, list) else [output])

    base = AgentLoopWorkerTQ.__ray_actor_class__
    monkeypatch.setattr(base, "_agent_loop_postprocess", put)
    return found


def worker_of(client: Client | None, metric: str | None = None) -> Any:
    """A worker whose judge knows the verdicts and shapes every reward."""
    made: Any = object.__new__(_RefiningWorker)  # verl's constructor wants a cluster
    made.config = OmegaConf.create({"algorithm": {"filter_groups": {"metric": metric}}})
    made._feedback = Feedback.FAILING_TEST
    made._refining = made._late = None
    if client is not None:
        made._refining = Refining(client, Filter.BETTER, 1.0)  # type: ignore[arg-type]

    async def judge(outputs: Sequence[AgentLoopOutput], kwargs: dict[str, Any]) -> None:
        extras = VERDICTS[tuple(outputs[-1].response_ids)]
        outputs[-1].reward_score = extras["score"] + SHAPED
        outputs[-1].extra_fields["reward_extra_info"] = dict(extras)

    made._compute_score = judge
    return made


def rollout(*response_ids: int) -> AgentLoopOutput:
    return AgentLoopOutput(
        prompt_ids=[7],
        response_ids=list(response_ids),
        response_mask=[1] * len(response_ids),
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={},
    )


def finish(worker: Any, output: AgentLoopOutput, validate: bool = False) -> AgentLoopOutput:
    messages = [{"role": "user", "content": "sum"}]
    told = {"uid": "a", "raw_prompt": messages, "global_steps": 3, "session_id": 1}
    asyncio.run(worker._agent_loop_postprocess(output, validate, **told))
    return output


def test_a_rollout_is_stored_with_its_refinement_judged_on_unshaped_scores(
    stored: list[AgentLoopOutput],
) -> None:
    client = Client()
    output = finish(worker_of(client), rollout(1, 2, 3))
    assert stored == [output]
    found = output.extra_fields["refine"]
    assert (found["reward"], found["refined_reward"], found["accepted"]) == (0.0, 0.1, True)
    assert (found["verdict"], found["refined_verdict"]) == ("wrong_answer", "better")
    assert output.reward_score == SHAPED
    assert output.response_mask == [1, 1, 1]
    (task,) = client.tasks
    assert task.messages == [{"role": "user", "content": "sum"}]
    assert list(task.answer_ids) == [1, 2, 3]


def test_the_failing_test_is_for_the_refiner_alone(stored: list[AgentLoopOutput]) -> None:
    client = Client()
    output = finish(worker_of(client), rollout(1, 2, 3))
    (task,) = client.tasks
    assert "2 + 2" in task.feedback
    assert "failing_test" not in output.extra_fields["reward_extra_info"]


def test_in_validation_nothing_is_refined(stored: list[AgentLoopOutput]) -> None:
    client = Client()
    output = finish(worker_of(client), rollout(1, 2, 3), validate=True)
    assert client.tasks == []
    assert "refine" not in output.extra_fields
    assert stored == [output]


def test_a_rollout_without_a_verdict_is_masked_out_refined_or_not(
    stored: list[AgentLoopOutput],
) -> None:
    for client in (None, Client()):
        output = finish(worker_of(client), rollout(4))
        assert output.response_mask == [0]
    assert output.extra_fields["refine"]["outcome"] == "unjudged"
    assert output.extra_fields["refine"]["accepted"] is False


def test_the_group_filter_is_told_of_a_rollout_without_a_verdict_once_it_is_stored(
    stored: list[AgentLoopOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, list[str], Any]] = []

    async def put(keys: list[str], partition_id: str, tags: Any) -> None:
        assert partition_id == "train"
        told.append((len(stored), keys, tags))

    monkeypatch.setattr(tq, "async_kv_batch_put", put)
    for filters in (False, True):
        worker = worker_of(Client())
        worker.config.algorithm.filter_groups.enable = filters
        for response in ((1, 2, 3), (4,)):
            finish(worker, rollout(*response))
        finish(worker, rollout(4), validate=True)
    # The fifth rollout that is stored is the first without a verdict while groups are filtered.
    assert told == [(5, ["a_1_0"], [{"unjudged": True}])]


def test_an_agent_loop_that_gives_nothing_is_left_to_verl(stored: list[AgentLoopOutput]) -> None:
    worker = worker_of(Client())
    asyncio.run(worker._agent_loop_postprocess([], False))
    assert stored == []


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("refinable_reward", SHAPED + 2e-3),
        ("refinable_score", 0.0 + 2e-3),
        ("seq_reward", None),
        (None, None),
    ],
)
def test_an_accepted_refinement_tells_the_group_filter_its_rollout_apart(
    stored: list[AgentLoopOutput], metric: str | None, expected: float | None
) -> None:
    """By session: this one is the second of its group."""
    output = finish(worker_of(Client(), metric), rollout(1, 2, 3))
    extras = output.extra_fields["reward_extra_info"]
    if expected is None:
        assert set(extras) == {"score", "verdict"}
    else:
        assert extras[str(metric)] == pytest.approx(expected)


def test_without_an_accepted_refinement_the_group_filter_sees_the_reward_itself(
    stored: list[AgentLoopOutput],
) -> None:
    output = finish(worker_of(Client(), "refinable_score"), rollout(4))
    assert output.extra_fields["reward_extra_info"]["refinable_score"] == 0.0


def test_an_accepted_refinement_sets_a_rollout_apart_and_nothing_else_does() -> None:
    all_wrong = [refinable(-0.3, False, session) for session in range(3)]
    assert np.std(all_wrong) == 0
    assert np.std([*all_wrong, refinable(-0.3, True, 3)]) > 0
    assert np.std([refinable(-0.3, True, session) for session in range(3)]) > 0

"""A penalty in verl's queue: subtracted in its place, and the rewards as they were afterwards."""

from typing import Any

import pytest
import torch
from memory_queue import MemoryQueue
from penalised import check_return_to_go
from transfer_queue import KVBatchMeta

from recipe.online_refiner.choices import Place
from recipe.online_refiner.method.constraint import Penalty
from recipe.online_refiner.queue.penalties import take_from_advantages, taken_from_rewards

REWARDS = {"a": [0.0, 1.0], "b": [-0.3], "c": [0.0, 0.0, -0.6]}
MASKS = {"a": [1, 1], "b": [1], "c": [1, 0, 1]}
BATCH = KVBatchMeta(keys=list(REWARDS), tags=[{}] * 3, partition_id="train")


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryQueue:
    rows = {
        key: {
            "rm_scores": torch.tensor(REWARDS[key]),
            "advantages": torch.tensor(REWARDS[key]) * 2,
            "response_mask": torch.tensor(MASKS[key]),
        }
        for key in REWARDS
    }
    return MemoryQueue.installed(monkeypatch, rows)


def penalty(place: Place) -> Penalty:
    """On the first and the last rollout, right-padded."""
    values = torch.tensor([[0.5, 0.25, 9.0], [1.0, 2.0, 4.0]])
    return Penalty(place, ("a", "c"), values)


def near(expected: dict[str, list[float]]) -> Any:
    return {key: pytest.approx(values) for key, values in expected.items()}


def test_rewards_carry_the_penalty_within_the_block_alone(queue: MemoryQueue) -> None:
    before = queue.field("rm_scores")
    with taken_from_rewards(BATCH, penalty(Place.REWARDS)):
        assert queue.field("rm_scores") == near(
            {"a": [-0.5, 0.75], "b": [-0.3], "c": [-1.0, 0.0, -4.6]}
        )
    assert queue.field("rm_scores") == before


def test_rewards_come_back_if_the_step_fails(queue: MemoryQueue) -> None:
    before = queue.field("rm_scores")
    with (
        pytest.raises(RuntimeError, match="verl"),
        taken_from_rewards(BATCH, penalty(Place.REWARDS)),
    ):
        raise RuntimeError("verl failed")
    assert queue.field("rm_scores") == before


def test_advantages_lose_the_penalty_on_unmasked_tokens_and_nothing_else_does(
    queue: MemoryQueue,
) -> None:
    rewards = queue.field("rm_scores")
    take_from_advantages(BATCH, penalty(Place.ADVANTAGES))
    assert queue.field("advantages") == near(
        {"a": [-0.5, 1.75], "b": [-0.6], "c": [-1.0, 0.0, -5.2]}
    )
    assert queue.field("rm_scores") == rewards


@pytest.mark.parametrize("other", [None, *Place])
def test_each_place_leaves_the_other_alone(queue: MemoryQueue, other: Place | None) -> None:
    found = None if other is None else penalty(other)
    before = queue.field("rm_scores"), queue.field("advantages")
    with taken_from_rewards(BATCH, None if other is Place.REWARDS else found):
        assert queue.field("rm_scores") == before[0]
    take_from_advantages(BATCH, None if other is Place.ADVANTAGES else found)
    assert (queue.field("rm_scores"), queue.field("advantages")) == before


def trained_on(advantage: list[float]) -> list[dict[str, Any]]:
    """A group of two: three tokens with c_t of 2, 1 and nothing, and one without a penalty."""
    one = {"step": 1, "uid": "g", "answer_tokens": ["a", "b", "c"]}
    accepted = one | {"accepted": True, "ce": [2.0, 1.0], "advantage": advantage}
    return [accepted, one | {"advantage": 1.0}]


def test_the_check_of_trainings_tells_a_return_to_go_from_other_penalties() -> None:
    """By λ = 0.5 from advantages of -1 and 1."""
    check_return_to_go(trained_on([-2.5, -1.5, -1.0]), lambda_=0.5)
    by_step, none, twice = [-2.0, -1.5, -1.0], [-1.0] * 3, [-4.0, -2.0, -1.0]
    for advantage in (by_step, none, twice):
        with pytest.raises(AssertionError):
            check_return_to_go(trained_on(advantage), lambda_=0.5)
    with pytest.raises(AssertionError):  # on every token too much
        check_return_to_go(trained_on([-3.0, -2.0, -1.5]), lambda_=0.5)

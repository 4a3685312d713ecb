"""The forward pass that measures c_t, teacher-forced, on rows put into the queue for it."""

from __future__ import annotations

import pytest
import torch
from memory_queue import MemoryQueue
from steps import refinement, rollout, step_of
from worker_group import WorkerGroup

from recipe.online_refiner.records import RefinedRollout
from recipe.online_refiner.update.measure import measure

PARTITION = "refine_ce"


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryQueue:
    return MemoryQueue.installed(monkeypatch, {})


def accepted() -> list[RefinedRollout]:
    """Prompts of two tokens, refinements of three, one and two."""
    texts = {"a_0": (5, 7, 0), "b_0": (0,), "c_0": (8, 0)}
    return step_of(
        [
            rollout(key, (9,), refinement(text, (0,) * len(text), sources=[(0, 1)] * len(text)))
            for key, text in texts.items()
        ]
    ).accepted


def test_the_cross_entropy_is_minus_the_log_prob_of_each_token_given_the_prompt(
    queue: MemoryQueue,
) -> None:
    workers = WorkerGroup(queue, ranks=1)
    found = measure(accepted(), workers, temperature=0.5, micro_batch_size=1)
    # The first token's log-prob stands at the prompt's last place, which has -2.
    values = [one.cross_entropy.tolist() for one in found if one.cross_entropy is not None]
    assert values == [[2.0, 3.0, 4.0], [2.0], [2.0, 3.0]]
    (seen,) = workers.seen
    assert seen.partition_id == PARTITION
    assert seen.extra_info == {
        "calculate_entropy": False,
        "compute_loss": False,
        "temperature": 0.5,
    }
    assert queue.partitions[PARTITION] == {}


def test_copies_of_the_shortest_row_fill_the_ranks_up(queue: MemoryQueue) -> None:
    class Watching(WorkerGroup):
        def compute_log_prob(self, batch: object) -> object:
            self.rows = list(queue.field("input_ids", PARTITION).values())
            return super().compute_log_prob(batch)

    workers = Watching(queue, ranks=2)
    found = measure(accepted(), workers, temperature=1.0, micro_batch_size=2)
    # The first two are the first rank's.
    assert workers.rows == [[1, 2, 5, 7, 0], [1, 2, 8, 0], [1, 2, 0], [1, 2, 0]]
    assert [one.key for one in found] == ["a_0", "b_0", "c_0"]


def test_nothing_accepted_is_no_pass(queue: MemoryQueue) -> None:
    workers = WorkerGroup(queue)
    assert measure([], workers, temperature=1.0, micro_batch_size=1) == []
    assert workers.seen == []


def test_a_row_whose_cross_entropy_is_not_finite_is_left_out(queue: MemoryQueue) -> None:
    class Broken(WorkerGroup):
        def compute_log_prob(self, batch: object) -> object:
            super().compute_log_prob(batch)
            first = next(iter(queue.partitions[PARTITION].values()))
            first["log_probs"] = torch.full_like(first["log_probs"], -torch.inf)
            return batch

    found = measure(accepted(), Broken(queue, ranks=1), temperature=1.0, micro_batch_size=1)
    assert [one.key for one in found] == ["b_0", "c_0"]

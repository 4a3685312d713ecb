"""A resumed DAPO run asks the same prompts as one that was never stopped.

verl's own data loader, sampler, replay buffer and refilling, and the file that its checkpoint has
of them; only the queue between them is in memory, and every rollout is there at once. Rewards are a
function of the prompt, so that some groups have no spread and are evicted and refilled.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_sampler
from verl.trainer.ppo.v1 import replay_buffer
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.dataset.rl_dataset import collate_fn

BATCH, ROLLOUTS, STEPS = 8, 2, 6
Reward = Callable[[int, int], float]


def third_without_a_spread(prompt: int, rollout: int) -> float:
    return 1.0 if prompt % 3 == 0 else float(rollout)


def always_a_spread(prompt: int, rollout: int) -> float:
    return float(rollout)


class Queue:
    """What the replay buffer asks of TransferQueue."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, torch.Tensor] = {}

    def kv_list(self) -> dict[str, dict[str, dict[str, Any]]]:
        return {"train": dict(self.tags)}

    def kv_clear(self, partition_id: str, keys: list[str]) -> None:
        for key in keys:
            self.tags.pop(key, None)
            self.scores.pop(key, None)

    def kv_batch_get(
        self, keys: list[str], partition_id: str, select_fields: list[str]
    ) -> dict[str, list[torch.Tensor]]:
        assert select_fields == ["rm_scores"]
        return {"rm_scores": [self.scores[key] for key in keys]}


class Run:
    """A trainer's part that asks for prompts, from its data loader to its sampled batch."""

    def __init__(self, rows: int, workers: int, reward: Reward, queue: Queue) -> None:
        data = OmegaConf.create(
            {"shuffle": True, "seed": 5, "train_batch_size": BATCH, "gen_batch_size": 1}
        )
        dataset = [{"raw_prompt": [{"role": "user", "content": str(n)}], "row": n,
                    "empty": torch.zeros(1)} for n in range(rows)]  # fmt: skip
        self.trainer = object.__new__(PPOTrainerSync)
        self.trainer.config = SimpleNamespace(data=data)
        self.trainer.train_dataloader = StatefulDataLoader(
            dataset=dataset, batch_size=1, num_workers=workers, drop_last=True,
            collate_fn=collate_fn, sampler=create_rl_sampler(data, dataset),
        )  # fmt: skip
        self.trainer.train_dataloader_it = None
        self._reward, self._queue = reward, queue
        self._asked: list[int] = []
        self._buffer = ReplayBuffer(
            "sync", OmegaConf.create({}), None, "drop", OmegaConf.create({}), poll_interval=0.0,
            refill_fn=self.ask, filter_groups_metric="reward", train_batch_size=BATCH,
            gen_batch_size=1,
        )  # fmt: skip

    def ask(self, count: int) -> int:
        batch = self.trainer._next_train_batch(count)
        for uid, row in zip(batch["uid"], batch["row"], strict=True):
            prompt = int(row)
            self._asked.append(prompt)
            self._queue.tags[uid] = {
                **{"is_prompt": True, "status": "finished"},
                "global_steps": self.trainer.global_steps,
            }
            for rollout in range(ROLLOUTS):
                key = f"{uid}_{rollout}_0"
                self._queue.tags[key] = {"status": "finished"}
                self._queue.scores[key] = torch.tensor([self._reward(prompt, rollout)])
        return count

    def step(self, number: int) -> list[int]:
        """The prompts that a step asks for, in order; the refilled ones at its end."""
        self.trainer.global_steps = number
        self._asked = []
        self.ask(BATCH)
        batch, _ = self._buffer.sample(number, "train", BATCH)
        self._queue.kv_clear("train", batch.keys)
        return self._asked

    def checkpoint(self) -> bytes:
        """What verl writes into data.pt."""
        file = io.BytesIO()
        torch.save(self.trainer.train_dataloader.state_dict(), file)
        return file.getvalue()

    def restore(self, checkpoint: bytes) -> None:
        state = torch.load(io.BytesIO(checkpoint), weights_only=False)
        self.trainer.train_dataloader.load_state_dict(state)

    def close(self) -> None:
        """Let go of the data loader, whose workers then end at once.

        Left to the garbage collector, which closes their queues first, each is waited for five
        seconds, in whichever test is running by then.
        """
        del self.trainer.train_dataloader, self.trainer.train_dataloader_it


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr(replay_buffer, "tq", queue)
    return queue


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("rows", "reward"),
    [(31, third_without_a_spread), (2 * BATCH, always_a_spread), (31, always_a_spread)],
)
def test_a_resumed_run_asks_what_one_that_was_never_stopped_asks(
    rows: int, reward: Reward, workers: int, queue: Queue
) -> None:
    with closing(Run(rows, workers, reward, queue)) as whole:
        asked, checkpoints = [], []
        for number in range(1, STEPS + 1):
            asked.append(whole.step(number))
            checkpoints.append(whole.checkpoint())
    refilled = sum(map(len, asked)) - STEPS * BATCH
    assert refilled > 0 if reward is third_without_a_spread else refilled == 0
    assert sum(map(len, asked)) > rows, "the run must go through the data more than once"
    for done in range(1, STEPS) if workers == 0 else (1, 4):
        with closing(Run(rows, workers, reward, queue)) as resumed:
            resumed.restore(checkpoints[done - 1])
            after = [resumed.step(number) for number in range(done + 1, STEPS + 1)]
        assert after == asked[done:], f"resumed after step {done}"

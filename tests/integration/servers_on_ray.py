"""Two refiner servers on a real Ray cluster: shared load, a server killed, a server that hangs.

Run by path in a process of its own, with the environment of `recipe.cpu`; prints what happened as
JSON.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import ray
import verl  # noqa: F401  loads the CPU platform and its shims
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from transformers import AutoTokenizer
from verl.single_controller.ray.base import ResourcePoolManager

from recipe.cpu.micro_apps import problems
from recipe.cpu.micro_corrupt import corrupt
from recipe.cpu.micro_tasks import Split, Style
from recipe.cpu.tiny_model_examples import policy_messages
from recipe.online_refiner.experiments import CONFIG
from refiner_worker.client import RefineLimits, RefinerClient, RefineTask
from refiner_worker.prompts import load_template
from refiner_worker.replicas import RefinerReplicas, ReplicaSettings

DEADLINE_S = 15.0
LIMITS = RefineLimits(192, 64, DEADLINE_S, max_concurrency=256)
ROLLOUTS = 48
BACK_WITHIN_S = 150.0


class Scenario:
    """The servers, a client and rollouts with a fault each."""

    def __init__(self, checkpoint: str) -> None:
        config = composed(checkpoint)
        ray.init(**OmegaConf.to_container(config.ray_kwargs.ray_init))
        pools = ResourcePoolManager({"refiner_pool": [2]}, mapping={})
        pools.create_resource_pool()
        settings = ReplicaSettings(
            model_path=checkpoint,
            max_model_len=256,
            sleeps=False,
            interrupts=False,
            restarts_any_time=True,
            watch_every_s=1.0,
            overrides={},
        )
        pool = pools.resource_pool_dict["refiner_pool"]
        self.replicas = RefinerReplicas(config, settings, pool)
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._template = load_template("micro-v1")
        self._rollouts = rollouts(self._tokenizer)

    async def refine_all(self) -> Counter[str]:
        """Refine every rollout at once; how many ended how."""
        # A client is bound to the event loop that it is first used in.
        client = RefinerClient(
            self.replicas.client(), self._tokenizer, self._template, LIMITS, temperature=0.0
        )
        tasks = [RefineTask(*rollout) for rollout in self._rollouts]
        done = await asyncio.gather(*map(client.refine, tasks))
        return Counter(str(one.outcome) for one in done)

    async def refine_while(self, act: Any) -> dict[str, Any]:
        """The same, while something is done to the servers."""
        started = time.monotonic()
        refining = asyncio.create_task(self.refine_all())
        loads = await self._loads_at_work()
        act()
        outcomes = await refining
        return {"outcomes": outcomes, "loads": loads, "seconds": time.monotonic() - started}

    async def _loads_at_work(self) -> list[int]:
        """Requests at each server, once all rollouts are under way."""
        balancer = self.replicas.client()._load_balancer
        while True:
            status = await balancer.get_status.remote()
            if status["total_inflight"] >= ROLLOUTS // 2:
                return sorted(status["servers"].values())

    def pids(self) -> list[int]:
        """Process of each server's actor."""
        balancer = self.replicas.client()._load_balancer
        # The least busy one each time, so that every server comes once.
        acquired = [
            ray.get(balancer.acquire_server.remote(f"look {index}"))
            for index in range(self.replicas.size)
        ]
        ray.get([balancer.release_server.remote(address) for address, _ in acquired])
        return ray.get([one.__ray_call__.remote(pid_of) for _, one in acquired])


def pid_of(server: Any) -> int:
    return os.getpid()


def composed(checkpoint: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose(
            "online_refiner",
            [
                *("hardware=cpu_debug", "experiment=quickstart_sane"),
                f"actor_rollout_ref.model.path={checkpoint}",
            ],
        )


def rollouts(tokenizer: Any) -> list[tuple[list[dict[str, str]], list[int]]]:
    rng = random.Random(0)
    found = []
    for problem in islice(problems(Split.TEST, 0), ROLLOUTS):
        answer = corrupt(problem.task, Style.draw(rng), rng)
        answer_ids = tokenizer.encode(answer, add_special_tokens=False)
        found.append((policy_messages(problem.task, rng), answer_ids))
    return found


def health(replicas: RefinerReplicas) -> dict[str, int]:
    return dict(vars(replicas.health()))


def wait_until_all_are_up(replicas: RefinerReplicas) -> float:
    started = time.monotonic()
    while replicas.health().alive < replicas.size:
        assert time.monotonic() - started < BACK_WITHIN_S, "the server did not come back"
        time.sleep(0.5)
    return time.monotonic() - started


def main(checkpoint: str) -> None:
    scenario = Scenario(checkpoint)
    replicas = scenario.replicas
    victim, sleeper = scenario.pids()
    report: dict[str, Any] = {"start": health(replicas)}
    report["undisturbed"] = asyncio.run(scenario.refine_while(lambda: None))
    report["hanging"] = asyncio.run(scenario.refine_while(lambda: os.kill(sleeper, signal.SIGSTOP)))
    os.kill(sleeper, signal.SIGCONT)
    report["killed"] = asyncio.run(scenario.refine_while(lambda: os.kill(victim, signal.SIGKILL)))
    while replicas.health().lost_total == 0:
        time.sleep(0.1)
    report["after_loss"] = asyncio.run(scenario.refine_all())
    report["back_after_s"] = wait_until_all_are_up(replicas)
    report["end"] = health(replicas)
    report["restored"] = asyncio.run(scenario.refine_while(lambda: None))
    replicas.close()
    ray.shutdown()
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

"""The judge as Ray actors that all processes of a node share.

verl's reward loop runs in several processes; a judge in each would start one zygote per core in
each. Here the first that asks starts the node's actors, the others find them by name. An actor that
dies is restarted by Ray, and by whoever asks next where the process that started it died with it.
"""

import asyncio
import hashlib
import logging
import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import Problem
from reward.verdict import JudgeResult, Verdict

logger = logging.getLogger(__name__)

_WORKERS_PER_ACTOR = 16
_PING_DEADLINE_S = 30.0
_START_DEADLINE_S = 180.0
_CONCURRENCY = 10_000  # calls that wait in an actor; what bounds them is `pool_queue`


class JudgeActor:
    """A judge in a process of its own; wrapped by `ray.remote` where it is started."""

    def __init__(self, config: JudgeConfig) -> None:
        self._config = config
        self._judge: Judge | None = None

    async def start(self) -> int:
        """Start the zygotes; the isolation level. Raises IsolationError below `min_level`."""
        if self._judge is None:
            self._judge = await asyncio.to_thread(Judge, self._config)
        return int(self._judge.level)

    async def judge(self, problem: Problem, code: str | None) -> JudgeResult:
        """See `reward.judge.Judge.judge`."""
        await self.start()
        assert self._judge is not None
        return await self._judge.judge_async(problem, code)

    async def pid(self) -> int:
        """The actor's process; an answer also says that its event loop is alive."""
        return os.getpid()


@dataclass
class _Slot:
    """One actor as this process sees it."""

    name: str
    workers: int
    room: asyncio.Semaphore
    handle: Any = None
    waiting: int = 0
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)


class RayPool:
    """This process's view of its node's actors. Belongs to one event loop."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config
        count = config.pool_actors or math.ceil(config.worker_count / _WORKERS_PER_ACTOR)
        count = min(count, config.worker_count)
        self.node_id = ray.get_runtime_context().get_node_id()
        digest = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
        self._slots = []
        for index in range(count):
            workers = config.worker_count // count + (index < config.worker_count % count)
            name = f"judge-{digest}-{self.node_id[:12]}-{index}"
            room = asyncio.Semaphore(workers * config.pool_queue)
            self._slots.append(_Slot(name, workers, room))

    async def judge(self, problem: Problem, code: str | None) -> JudgeResult:
        """The verdict, from the actor with the least work; waits for room there.

        An actor that dies or hangs costs a retry; after `config.retries` of them the result is an
        internal error, never an exception, so that no batch is lost.

        Raises:
            IsolationError: this node gives less isolation than `min_level`.
        """
        reason = ""
        for attempt in range(self.config.retries + 1):
            slot = min(self._slots, key=lambda slot: slot.waiting / slot.workers)
            slot.waiting += 1
            try:
                async with slot.room:
                    return await self._ask(slot, problem, code)
            except (RayActorError, TimeoutError) as error:
                reason = f"judge actor {slot.name}: {error or type(error).__name__}"
                logger.warning("attempt %d failed: %s", attempt + 1, reason)
                slot.handle = None
            finally:
                slot.waiting -= 1
        total = len(problem.tests)
        return JudgeResult(Verdict.INTERNAL_ERROR, 0, total, 0.0, 0, 0.0, reason)

    async def _ask(self, slot: _Slot, problem: Problem, code: str | None) -> JudgeResult:
        """Ask an actor; while it takes its time, make sure that it is alive."""
        handle = await self._started(slot)
        answer = asyncio.ensure_future(_awaited(handle.judge.remote(problem, code)))
        try:
            while True:
                done, _ = await asyncio.wait({answer}, timeout=self.config.program_timeout_s)
                if done:
                    return answer.result()
                await self._ping(handle)
        finally:
            answer.cancel()

    async def _ping(self, handle: Any) -> None:
        try:
            await asyncio.wait_for(_awaited(handle.pid.remote()), _PING_DEADLINE_S)
        except TimeoutError:
            ray.kill(handle, no_restart=True)
            raise

    async def _started(self, slot: _Slot) -> Any:
        async with slot.starting:
            if slot.handle is None:
                handle = self._find_or_create(slot)
                await asyncio.wait_for(_awaited(handle.start.remote()), _START_DEADLINE_S)
                slot.handle = handle
        return slot.handle

    def _find_or_create(self, slot: _Slot) -> Any:
        config = replace(self.config, workers=slot.workers, pool="process")
        affinity = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        options = ray.remote(JudgeActor).options(
            name=slot.name,
            get_if_exists=True,
            num_cpus=0,  # the cores are the policy's bundles too; nothing may wait for them
            max_restarts=-1,
            max_concurrency=_CONCURRENCY,
            scheduling_strategy=affinity,
        )
        return options.remote(config)


async def _awaited(reference: Any) -> Any:
    return await reference

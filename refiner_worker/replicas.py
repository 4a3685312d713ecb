"""The refiner's worker group: frozen inference servers started from verl's replica classes.

The servers live in the trainer's resource pool beside the policy's rollout and the actor
(`colocated`), asleep while the actor trains, or in a pool of their own (`pool`), always awake.
verl knows nothing of them: waking and sleeping are the trainer's duty, through this class.
"""

import asyncio
import contextlib
import copy
import logging
import os
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from verl.single_controller.ray.base import RayResourcePool, split_resource_pool
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient
from verl.workers.rollout.replica import RolloutReplica, get_rollout_replica_class
from verl.workers.rollout.router import get_router_handle

from refiner_worker.engine import replica_gpus
from refiner_worker.replica_group import GroupHealth, GroupSettings, ReplicaGroup

logger = logging.getLogger(__name__)

T = TypeVar("T")

SERVER_NAME_SUFFIX = "refiner"
"""Makes the servers' Ray names unique; policy servers are looked up by the unsuffixed name."""

ENDING_TIMEOUT_S = 10.0
"""What a server may take to end its engine before it is killed."""


@dataclass(frozen=True)
class ReplicaSettings:
    """What the refiner's servers differ in from the policy's rollout servers.

    Attributes:
        model_path: the frozen model, a local folder or a hub id.
        max_model_len: longest refiner prompt plus longest refinement, in tokens.
        sleeps: whether the servers share their GPUs with the actor and must give them up.
        interrupts: whether refinements under way are interrupted when the servers go to sleep, and
            go on when they wake.
        restarts_any_time: whether a server that died may be started again at once, or only while
            the group is asleep; see `replica_group.GroupSettings`.
        watch_every_s: seconds between two looks at whether the servers are well.
        overrides: keys of verl's rollout config to set last (`gpu_memory_utilization`, …).
    """

    model_path: str
    max_model_len: int
    sleeps: bool
    interrupts: bool
    restarts_any_time: bool
    watch_every_s: float
    overrides: Mapping[str, Any]


def derive_config(config: DictConfig, settings: ReplicaSettings) -> DictConfig:
    """The whole config as the refiner's servers and clients must see it: policy's, then ours."""
    derived = copy.deepcopy(config)
    rollout = derived.actor_rollout_ref.rollout
    with open_dict(derived):
        # The policy's servers start from dummy weights and wait for the actor's; these load theirs.
        rollout.load_format = "auto"
        rollout.max_model_len = settings.max_model_len
        if not settings.sleeps:
            rollout.free_cache_engine = False
        derived.actor_rollout_ref.rollout = OmegaConf.merge(
            rollout, OmegaConf.create(dict(settings.overrides))
        )
    return derived


class _ReplicaServer:
    """verl's replica as a member of the group."""

    def __init__(self, replica: RolloutReplica) -> None:
        self._replica = replica
        self.address: str = replica.server_address
        self.handle = replica.server_handle

    async def wake_up(self) -> None:
        await self._replica.wake_up()

    async def sleep(self) -> None:
        await self._replica.sleep()

    async def interrupt(self) -> None:
        await self._replica.abort_all_requests()

    async def go_on(self) -> None:
        await self._replica.resume_generation()

    async def load(self, model_path: str) -> None:
        for server in self._replica.servers:
            await server.collective_rpc.remote(
                "reload_weights", kwargs={"weights_path": model_path}
            )
            await server.clear_kv_cache.remote()

    async def is_healthy(self) -> bool:
        pings = [server.__ray_call__.remote(_engine_works) for server in self._replica.servers]
        return all(await asyncio.gather(*pings))

    async def process_id(self) -> int:
        """Of its first node's server, on that node."""
        pid: int = await self.handle.__ray_call__.remote(lambda server: os.getpid())
        return pid

    async def discard(self) -> None:
        ends = [server.__ray_call__.remote(_end_engine) for server in self._replica.servers]
        # Whoever is dead or hangs cannot end its engine; then it is killed with what it holds.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.gather(*ends), ENDING_TIMEOUT_S)
        for actor in (*self._replica.servers, *self._replica.workers):
            ray.kill(actor, no_restart=True)


def _engine_works(server: Any) -> bool:
    """Runs inside the server: an engine in a process of its own may die and leave it behind."""
    return not getattr(getattr(server, "engine", None), "errored", False)


def _end_engine(server: Any) -> None:
    """Runs inside the server: an engine in a process of its own would outlive it."""
    if hasattr(getattr(server, "engine", None), "shutdown"):
        server.engine.shutdown()


class _BalancedRouter:
    """verl's load balancer, least busy server first."""

    def __init__(self) -> None:
        self.handle = get_router_handle(servers={})

    async def add(self, server: _ReplicaServer) -> None:
        await self.handle.add_servers.remote({server.address: server.handle})

    async def remove(self, address: str) -> None:
        await self.handle.remove_servers.remote([address])

    async def inflight(self) -> int:
        count: int = await self.handle.get_total_inflight.remote()
        return count


class RefinerReplicas:
    """A group of frozen servers, one every tensor·data·pipeline-parallel slice of the pool.

    The group lives in an event loop of its own thread, where it looks after the servers.
    """

    def __init__(
        self, config: DictConfig, settings: ReplicaSettings, resource_pool: RayResourcePool
    ) -> None:
        """Launch the servers and wait until they answer.

        Args:
            config: the whole training config.
            settings: how the refiner's servers differ from the policy's.
            resource_pool: the Ray placement to live in; its size must be a multiple of a replica's.
        """
        self._config = derive_config(config, settings)
        self._model_path = settings.model_path
        self._interrupts = settings.interrupts
        self._router = _BalancedRouter()
        rollout = self._config.actor_rollout_ref.rollout
        self._pools = split_resource_pool(resource_pool, split_size=replica_gpus(rollout))
        self._group = ReplicaGroup(
            self._launch,
            self._router,
            GroupSettings(
                size=len(self._pools),
                sleeps=settings.sleeps,
                interrupts=settings.interrupts,
                restarts_any_time=settings.restarts_any_time,
            ),
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="refiner", daemon=True).start()
        self._run(self._group.start())
        self._watch = asyncio.run_coroutine_threadsafe(
            self._group.watch(settings.watch_every_s), self._loop
        )

    def close(self) -> None:
        """Look after the servers no more; to be called before Ray is shut down."""
        self._watch.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def client(self) -> LLMServerClient:
        """A client over all replicas, least busy first; can be sent to other Ray processes.

        Where the servers interrupt requests, it sends them again with what was generated so far.
        """
        kind = FullyAsyncLLMServerClient if self._interrupts else LLMServerClient
        return kind(config=self._config, load_balancer_handle=self._router.handle)

    def wake_up(self) -> None:
        """Take the GPU memory back; nothing to do if the servers never sleep."""
        self._run(self._group.wake_up())

    def sleep(self) -> None:
        """Give the GPU memory up while the actor trains."""
        self._run(self._group.sleep())

    def load(self, model_path: str) -> None:
        """Refine with another model of the same shape from now on; the servers must be awake."""
        self._model_path = model_path
        self._run(self._group.load(model_path))

    def health(self) -> GroupHealth:
        """What became of the servers."""

        async def read() -> GroupHealth:
            return self._group.health()

        return self._run(read())

    async def _launch(self, rank: int, launch: int) -> _ReplicaServer:
        replica = self._make_replica(rank, launch)
        # In a thread: verl makes the workers with blocking calls, and the others must be served.
        await asyncio.to_thread(asyncio.run, replica.init_colocated(self._pools[rank]))
        server = _ReplicaServer(replica)
        logger.info("refiner server %d is up: process %d", rank, await server.process_id())
        return server

    def _make_replica(self, rank: int, launch: int) -> RolloutReplica:
        rollout = self._config.actor_rollout_ref.rollout
        model = {"_target_": "verl.workers.config.HFModelConfig", "path": self._model_path}
        return get_rollout_replica_class(rollout.name)(
            replica_rank=rank,
            config=rollout,
            model_config=OmegaConf.create(model),
            gpus_per_node=self._config.trainer.n_gpus_per_node,
            is_teacher_model=True,
            # Ray frees the name of a killed actor late.
            name_suffix=f"{SERVER_NAME_SUFFIX}{launch or ''}",
        )

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

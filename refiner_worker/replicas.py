"""The refiner's worker group: frozen inference servers started from verl's replica classes.

The servers live in the trainer's resource pool beside the policy's rollout and the actor
(`colocated`), asleep while the actor trains, or in a pool of their own (`pool`), always awake.
verl knows nothing of them: waking and sleeping are the trainer's duty, through this class.
"""

import asyncio
import copy
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from verl.single_controller.ray.base import RayResourcePool, split_resource_pool
from verl.utils.ray_utils import auto_await
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import RolloutReplica, get_rollout_replica_class
from verl.workers.rollout.router import get_router_handle

SERVER_NAME_SUFFIX = "refiner"
"""Makes the servers' Ray names unique; policy servers are looked up by the unsuffixed name."""


@dataclass(frozen=True)
class ReplicaSettings:
    """What the refiner's servers differ in from the policy's rollout servers.

    Attributes:
        model_path: the frozen model, a local folder or a hub id.
        max_model_len: longest refiner prompt plus longest refinement, in tokens.
        sleeps: whether the servers share their GPUs with the actor and must give them up.
        overrides: keys of verl's rollout config to set last (`gpu_memory_utilization`, …).
    """

    model_path: str
    max_model_len: int
    sleeps: bool
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


@auto_await
async def _run_all(tasks: list[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*tasks)


class RefinerReplicas:
    """A group of frozen servers, one every tensor·data·pipeline-parallel slice of the pool."""

    def __init__(
        self, config: DictConfig, settings: ReplicaSettings, resource_pool: RayResourcePool
    ) -> None:
        """Launch the servers and wait until they answer.

        Args:
            config: the whole training config.
            settings: how the refiner's servers differ from the policy's.
            resource_pool: the Ray placement to live in; its size must be a multiple of a replica's.
        """
        self._sleeps = settings.sleeps
        self._config = derive_config(config, settings)
        rollout = self._config.actor_rollout_ref.rollout
        replica_size = (
            rollout.tensor_model_parallel_size
            * rollout.data_parallel_size
            * rollout.pipeline_model_parallel_size
        )
        pools = split_resource_pool(resource_pool, split_size=replica_size)
        self._replicas = [
            self._make_replica(rank, settings.model_path) for rank in range(len(pools))
        ]
        _run_all(
            [
                replica.init_colocated(pool)
                for replica, pool in zip(self._replicas, pools, strict=True)
            ]
        )
        self._load_balancer = get_router_handle(
            servers={replica.server_address: replica.server_handle for replica in self._replicas}
        )

    def _make_replica(self, rank: int, model_path: str) -> RolloutReplica:
        rollout = self._config.actor_rollout_ref.rollout
        model = {"_target_": "verl.workers.config.HFModelConfig", "path": model_path}
        return get_rollout_replica_class(rollout.name)(
            replica_rank=rank,
            config=rollout,
            model_config=OmegaConf.create(model),
            gpus_per_node=self._config.trainer.n_gpus_per_node,
            is_teacher_model=True,
            name_suffix=SERVER_NAME_SUFFIX,
        )

    def client(self) -> LLMServerClient:
        """A client over all replicas, least busy first; can be sent to other Ray processes."""
        return LLMServerClient(config=self._config, load_balancer_handle=self._load_balancer)

    def wake_up(self) -> None:
        """Take the GPU memory back; nothing to do where the servers never sleep."""
        if self._sleeps:
            _run_all([replica.wake_up() for replica in self._replicas])

    def sleep(self) -> None:
        """Give the GPU memory up while the actor trains."""
        if self._sleeps:
            _run_all([replica.sleep() for replica in self._replicas])

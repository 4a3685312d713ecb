"""The refiner's life beside verl's own servers.

Awake while rollouts are made; asleep while the actor trains, where both share GPUs. Launched when
the policy's servers are asleep for the first time, or beside them where each has memory of its own.
A run that does not refine has none, and every call does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.single_controller.ray.base import RayResourcePool
from verl.workers.rollout.llm_server import LLMServerClient

from recipe.online_refiner.budgets import refine_limits, refiner_model_length
from recipe.online_refiner.settings import Settings
from refiner_worker.engine import server_overrides
from refiner_worker.replicas import RefinerReplicas, ReplicaSettings

ACTOR_POOL = "global_pool"
REFINER_POOL = "refiner_pool"


class RefinerServers:
    """The frozen servers of one training.

    Args:
        config: the whole config. settings: our part of it.
    """

    def __init__(self, config: DictConfig, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._has_own_pool = settings.refines and settings.refiner.placement == "pool"
        self._early: Future[RefinerReplicas] | None = None
        self._replicas: RefinerReplicas | None = None

    def add_pool(self, pools: dict[str, list[int]]) -> None:
        """Add the refiner's GPUs per node to verl's resource pools, where it has its own."""
        if self._has_own_pool:
            pool = self._settings.refiner.pool
            pools[REFINER_POOL] = [pool.n_gpus_per_node] * pool.nnodes

    def launch_early(self, pools: Mapping[str, RayResourcePool]) -> None:
        """Start launching in the background, where no memory is shared with the policy."""
        if self._settings.refines and (self._has_own_pool or self._config.trainer.device == "cpu"):
            thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refiner")
            self._early = thread.submit(self._launch, pools)
            thread.shutdown(wait=False)

    def launch(self, pools: Mapping[str, RayResourcePool]) -> None:
        """Wait until the servers answer, and put them to sleep until they are needed."""
        if self._settings.refines:
            early = self._early
            self._replicas = self._launch(pools) if early is None else early.result()
            self.sleep()

    def _launch(self, pools: Mapping[str, RayResourcePool]) -> RefinerReplicas:
        pool = pools[REFINER_POOL if self._has_own_pool else ACTOR_POOL]
        return RefinerReplicas(self._config, self._replica_settings(), pool)

    def _replica_settings(self) -> ReplicaSettings:
        refiner = self._settings.refiner
        return ReplicaSettings(
            model_path=refiner.model_path or self._config.actor_rollout_ref.model.path,
            max_model_len=refiner_model_length(refine_limits(self._config, self._settings)),
            sleeps=refiner.placement == "colocated",
            overrides=_merged(
                server_overrides(refiner.decoding, self._config.actor_rollout_ref.rollout.name),
                refiner.rollout,
            ),
        )

    def client(self) -> LLMServerClient | None:
        """The client that the agent loops refine through; None where nothing is refined."""
        return None if self._replicas is None else self._replicas.client()

    def wake_up(self) -> None:
        """Take the GPU memory back."""
        if self._replicas is not None:
            self._replicas.wake_up()

    def sleep(self) -> None:
        """Give the GPU memory up."""
        if self._replicas is not None:
            self._replicas.sleep()


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    merged = OmegaConf.to_container(OmegaConf.merge(dict(below), dict(above)))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}

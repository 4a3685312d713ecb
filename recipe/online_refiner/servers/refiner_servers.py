"""The refiner's life beside verl's own servers.

Awake while rollouts are made; asleep while the actor trains, if both share GPUs. Launched when
the policy's servers are asleep for the first time, or beside them if each has memory of its own.
A run that does not refine has none, and every call does nothing; nor has one in which the policy's
servers refine on their base weights.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from omegaconf import OmegaConf
from verl.single_controller.ray.base import RayResourcePool
from verl.workers.rollout.llm_server import LLMServerClient

from recipe.online_refiner.choices import ACTOR_POOL, REFINER_POOL, Mode, Placement
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.servers.policy_average import PolicyAverage
from refiner_worker.base_weights import OnBaseWeights
from refiner_worker.engine import Generator, server_overrides
from refiner_worker.replicas import RefinerReplicas, ReplicaSettings


class RefinerLostError(RuntimeError):
    """A server of the refiner died and the run is to stop for it."""


class RefinerServers:
    """The frozen servers of one training.

    Args:
        plan: of the run.

    Attributes:
        launched: when the servers were begun to be started and when they answered, in seconds since
            the epoch; None before that, or if there are none.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._early: Future[RefinerReplicas] | None = None
        self._replicas: RefinerReplicas | None = None
        self._lost_total = 0
        self.average = PolicyAverage(plan.settings.run.dir)
        self._is_loaded = False
        self.launched: tuple[float, float] | None = None

    def add_pool(self, pools: dict[str, list[int]]) -> None:
        """Add the refiner's GPUs per node to verl's resource pools, if it has its own."""
        if self._plan.has_own_pool:
            pool = self._plan.settings.refiner.pool
            pools[REFINER_POOL] = [pool.n_gpus_per_node] * pool.nnodes

    def prepare_policy_servers(self) -> None:
        """Before the policy's servers are made: let them also serve their base weights if asked."""
        if self._plan.shares_base:
            # Imports the engine, which most placements leave to the servers' processes.
            from refiner_worker.shared_base import share_base_weights

            share_base_weights()

    def launch_early(self, pools: Mapping[str, RayResourcePool]) -> None:
        """Start launching in the background if the servers' memory is known beforehand."""
        if self._plan.has_refiner_servers and self._plan.starts_servers_together:
            thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refiner")
            self._early = thread.submit(self._launch, pools)
            thread.shutdown(wait=False)

    def launch(self, pools: Mapping[str, RayResourcePool]) -> None:
        """Wait until the servers answer, and put them to sleep until they are needed."""
        if self._plan.has_refiner_servers:
            early = self._early
            self._replicas = self._launch(pools) if early is None else early.result()
            self.load_average()
            self.sleep()

    def _launch(self, pools: Mapping[str, RayResourcePool]) -> RefinerReplicas:
        pool = pools[REFINER_POOL if self._plan.has_own_pool else ACTOR_POOL]
        began = time.time()
        replicas = RefinerReplicas(self._plan.config, self._replica_settings(), pool)
        self.launched = (began, time.time())
        return replicas

    def _replica_settings(self) -> ReplicaSettings:
        refiner = self._plan.settings.refiner
        return ReplicaSettings(
            model_path=refiner.model_path or self._plan.config.actor_rollout_ref.model.path,
            max_model_len=self._plan.limits.context_tokens,
            sleeps=refiner.placement is Placement.COLOCATED,
            interrupts=self._plan.config.trainer.v1.trainer_mode == Mode.COLOCATE_ASYNC,
            # Elsewhere the memory that a server starts with is taken by the policy or the actor.
            restarts_any_time=self._plan.has_own_pool or self._plan.config.trainer.device == "cpu",
            watch_every_s=refiner.watch_every_s,
            overrides=_merged(
                server_overrides(self._plan.decoding.decoding, self._plan.engine),
                refiner.rollout,
            ),
        )

    def client(self, policy: LLMServerClient) -> Generator | None:
        """The client that the agent loops refine through; None if nothing is refined.

        Args:
            policy: the client of the policy's servers, which refine if the base is shared.
        """
        if self._plan.shares_base:
            return OnBaseWeights(policy)
        return None if self._replicas is None else self._replicas.client()

    def wake_up(self) -> None:
        """Take the GPU memory back."""
        if self._replicas is not None:
            self._replicas.wake_up()

    def sleep(self) -> None:
        """Give the GPU memory up."""
        if self._replicas is not None:
            self._replicas.sleep()

    def follow(self, actor: Any, decay: float) -> None:
        """Move the refiner's weights, on disk, towards the actor's; see `PolicyAverage.follow`."""
        self.average.follow(actor, decay)
        self._is_loaded = False

    def load_average(self) -> None:
        """Have the servers, which are awake, load the average if it is new to them."""
        if self._replicas is not None and self.average.path is not None and not self._is_loaded:
            self._replicas.load(str(self.average.path))
            self._is_loaded = True

    def health_metrics(self) -> dict[str, float]:
        """What became of the servers since the start, and the longest queue since the last call."""
        if self._replicas is None:
            return {}
        health = self._replicas.health()
        self._lost_total = health.lost_total
        return {
            "refiner/replicas_alive": float(health.alive),
            "refiner/replicas_lost_total": float(health.lost_total),
            "refiner/replicas_restarted_total": float(health.restarts_total),
            "refiner/queue_depth_max": float(health.max_inflight),
        }

    @property
    def must_stop(self) -> bool:
        """Whether a server had died when the health was last read, and that is to end the run."""
        return self._lost_total > 0 and self._plan.settings.refiner.on_failure == "stop"

    def stop_if_lost(self) -> None:
        """Raise RefinerLostError if a server has died and `refiner.on_failure` is `stop`."""
        if self.must_stop:
            raise RefinerLostError(
                f"refiner.on_failure='stop', and servers of the refiner died: {self._lost_total}. "
                "Fix: look for 'refiner server' in the log, remove the cause, and start the same "
                "command again, which resumes from the checkpoint that was just saved; or set "
                "refiner.on_failure=continue to go on unconstrained until a server is back"
            )


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    merged = OmegaConf.to_container(OmegaConf.merge(dict(below), dict(above)))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}

"""What a run is going to do, resolved once at its start and the same in every process."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe.online_refiner.choices import (
    ACTOR_POOL,
    REFINER_POOL,
    REWARD_POOL,
    Filter,
    Mode,
    Placement,
    Source,
)
from recipe.online_refiner.settings import RefinerSettings, Settings
from refiner_worker.choice import Choice
from refiner_worker.client import RefineLimits
from refiner_worker.engine import Decoding


def paths_of(value: str | ListConfig) -> list[str]:
    """The files of a key that takes one path or several."""
    return [value] if isinstance(value, str) else list(value)


def longest_sequence(config: DictConfig) -> int:
    """Tokens of the policy's longest prompt with the longest response, as its servers count them.

    SGLang's server in verl leaves the last token of its length unused.
    """
    spare = 1 if config.actor_rollout_ref.rollout.name == "sglang" else 0
    return int(config.data.max_prompt_length + config.data.max_response_length + spare)


@dataclass(frozen=True)
class Needs:
    """What a constraint asks of the run beside verl's own training.

    Attributes:
        refinements: that rollouts are refined.
        reference: the reference's log-probs at every step, and not only when they are watched.
        own_loss: our loss on the actor, since something is added to its update.
        top_tokens: the refiner's likeliest so many tokens over each token of an accepted
            refinement; 0 if they are not asked for.
        dropped_prompts: the prompts of the step whose rollouts never reach the update.
    """

    refinements: bool = False
    reference: bool = False
    own_loss: bool = False
    top_tokens: int = 0
    dropped_prompts: bool = False


@dataclass(frozen=True)
class RefiningPlan:
    """The part of the plan that the agent loops' workers refine by; small, since it is shipped.

    Attributes:
        refiner: the section `refiner`. filter: between R(a') and R(a).
        limits, engine, decoding, joins_late: see `RunPlan`. top_tokens: see `Needs`.
    """

    refiner: RefinerSettings
    filter: Filter
    limits: RefineLimits
    engine: str
    decoding: Decoding
    top_tokens: int = 0
    joins_late: bool = False


@dataclass(frozen=True)
class RunPlan:
    """One run, as `resolve` makes it of a composed config.

    Attributes:
        config: the whole config, verl's keys set for our settings.
        settings: our sections of it.
        needs: of the constraint.
        limits: bounds on one refinement.
        engine: verl's `rollout.name` of the refiner's servers.
        decoding: how refinements are decoded, and why; `auto` is resolved.
    """

    config: DictConfig
    settings: Settings
    needs: Needs
    limits: RefineLimits
    engine: str
    decoding: Choice

    @property
    def refining(self) -> RefiningPlan:
        """What the agent loops' workers are told."""
        return RefiningPlan(
            self.settings.refiner,
            self.settings.constraint.filter,
            self.limits,
            self.engine,
            self.decoding.decoding,
            self.needs.top_tokens,
            self.joins_late,
        )

    @property
    def refines(self) -> bool:
        """Whether a refiner runs at all: to constrain, or only to be observed."""
        return self.needs.refinements or self.settings.refiner.observe

    @property
    def watches_dropped(self) -> bool:
        """Whether rollouts are read that never reach the update: to be counted, or for a prompt."""
        return self.refines or self.needs.dropped_prompts

    @property
    def shares_base(self) -> bool:
        """Whether the policy's servers refine, on their base weights."""
        return self.refines and self.settings.refiner.placement is Placement.SHARED_BASE

    @property
    def has_own_pool(self) -> bool:
        """Whether the refiner's servers have GPUs of their own."""
        return self.refines and self.settings.refiner.placement is Placement.POOL

    @property
    def late_join_obstacles(self) -> tuple[str, ...]:
        """Each setting under which a step cannot go on while it is still refined, and why not."""
        mode, placement = self.config.trainer.v1.trainer_mode, self.settings.refiner.placement
        found = []
        if placement is not Placement.POOL:
            found.append(f"refiner.placement={placement}: its servers sleep while the actor trains")
        if mode != Mode.SYNC:
            found.append(f"trainer.v1.trainer_mode={mode}: it rolls out ahead, and waits for none")
        if self.config.algorithm.filter_groups.enable:
            found.append("algorithm.filter_groups.enable=True: what is evicted is counted refined")
        return tuple(found)

    @property
    def joins_late(self) -> bool:
        """Whether a step goes on while its last refinements are written and judged."""
        return (
            self.refines
            and self.settings.refiner.late_join is not False
            and not self.late_join_obstacles
        )

    @property
    def starts_servers_together(self) -> bool:
        """Whether the refiner's servers may start while the policy's do.

        An engine that measures how much memory is free for its cache would be misled by the other.
        With sizes that are given (vLLM's `kv_cache_memory_bytes`) none measures.
        """
        if self.has_own_pool or self.config.trainer.device == "cpu":
            return True
        key = "engine_kwargs.vllm.kv_cache_memory_bytes"
        given = OmegaConf.select(self.config, f"actor_rollout_ref.rollout.{key}")
        return self.engine == "vllm" and given is not None  # the refiner's, too, by default

    @property
    def refines_by_average(self) -> bool:
        """Whether the refiner is a moving average of the policy."""
        return self.refines and self.settings.refiner.source is Source.EMA

    @property
    def has_refiner_servers(self) -> bool:
        """Whether the refiner has servers beside the policy's."""
        return self.refines and not self.shares_base

    @property
    def forwards_reference(self) -> bool:
        """Whether the reference is forwarded at all."""
        return self.needs.reference or self.settings.monitor.kl_to_reference

    @property
    def uses_own_loss(self) -> bool:
        """Whether the actor gets our loss: for what is added to it, or to read labels by it."""
        return self.needs.own_loss or self.settings.monitor.self_fed_ce

    @property
    def has_critic(self) -> bool:
        """As verl decides it."""
        if self.config.critic.enable is not None:
            return bool(self.config.critic.enable)
        return str(self.config.algorithm.adv_estimator) == "gae"

    @property
    def is_megatron(self) -> bool:
        """Whether the actor trains under Megatron-Core."""
        return bool(self.config.actor_rollout_ref.actor.strategy == "megatron")

    @property
    def trainer_gpus(self) -> int:
        """GPUs of the pool in which the actor trains."""
        return int(self.config.trainer.n_gpus_per_node) * int(self.config.trainer.nnodes)

    @property
    def pools(self) -> dict[str, int]:
        """GPUs of each pool by name, in verl's and our names."""
        return {name: nodes * gpus for name, (nodes, gpus) in self.pool_nodes.items()}

    @property
    def pool_nodes(self) -> dict[str, tuple[int, int]]:
        """Nodes of each pool, and GPUs on each of them.

        verl reserves the reward model's pool also if no reward model is served.
        """
        trainer = self.config.trainer
        found = {ACTOR_POOL: (int(trainer.nnodes), int(trainer.n_gpus_per_node))}
        reward_model = self.config.reward.reward_model
        if reward_model.enable_resource_pool:
            found[REWARD_POOL] = (int(reward_model.nnodes), int(reward_model.n_gpus_per_node))
        if self.has_own_pool:
            pool = self.settings.refiner.pool
            found[REFINER_POOL] = (pool.nnodes, pool.n_gpus_per_node)
        return found

"""Which configurations cannot take rows beside the policy's in the actor's update."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

ROUTER_REPLAY = "actor_rollout_ref.actor.megatron.router_replay.mode"
WHY = "constraint.inject=sft and constraint.kind=distill and chord add rows to its mini-batches"


def extra_row_faults(config: DictConfig) -> Iterator[str]:
    """Sentences for a constraint that adds rows: what verl's update would do with them."""
    actor = config.actor_rollout_ref.actor
    if actor.shuffle:
        yield (
            f"actor_rollout_ref.actor.shuffle=True: {WHY}, where they must stay. Fix: "
            "actor_rollout_ref.actor.shuffle=False"
        )
    if actor.strategy not in ("fsdp", "fsdp2", "megatron"):
        yield (
            f"actor_rollout_ref.actor.strategy={actor.strategy!r}: {WHY}, which is written for "
            "FSDP and Megatron. Fix: actor_rollout_ref.actor.strategy=fsdp2"
        )
    if config.distillation.enabled:
        yield (
            f"distillation.enabled=True: {WHY} and replace its loss, and verl's distillation has "
            "one of its own. Fix: distillation.enabled=False"
        )
    replay = OmegaConf.select(config, ROUTER_REPLAY)
    if replay not in (None, "disabled"):
        yield (
            f"{ROUTER_REPLAY}={replay!r}: {WHY}, and no rollout "
            f"recorded their experts. Fix: {ROUTER_REPLAY}=disabled"
        )

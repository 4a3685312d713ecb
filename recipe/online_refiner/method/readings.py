"""Which configurations cannot read a' in the states of the rollout, or not with these keys."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.choices import Align, Conditioning, Inject, Tokens
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.settings import ConstraintSettings

SELF_FEEDING = "constraint.conditioning=self_feeding"
FITTING = (Tokens.FIRST_EDIT, Tokens.ALIGNED)
"""Selections whose labels fit the states that are asked for them."""
WITHOUT_LOGITS = (
    ("actor_rollout_ref.model.use_fused_kernels", "fused kernels never make the logits"),
    ("actor_rollout_ref.actor.fsdp_config.pad_to_length", "verl refuses it beside that pass"),
    ("actor_rollout_ref.actor.megatron.pad_to_length", "verl refuses it beside that pass"),
    (
        "actor_rollout_ref.actor.megatron.dynamic_context_parallel",
        "verl does not say how a pass is split",
    ),
    (
        "actor_rollout_ref.actor.megatron.override_transformer_config.fp8",
        "verl does not say how a pass is padded",
    ),
)
"""Keys under which verl gives a loss no logits that labels could be laid beside, and why."""


def reading_faults(plan: RunPlan) -> Iterator[str]:
    """Sentences on `constraint.conditioning` with the keys that have to fit it."""
    section = plan.settings.constraint
    if section.conditioning is Conditioning.TEACHER_FORCING:
        if section.tokens is Tokens.ALIGNED:
            yield (
                "constraint.tokens=aligned: it chooses states of the rollout, which "
                "constraint.conditioning=teacher_forcing does not ask. Fix: "
                f"{SELF_FEEDING}, or constraint.tokens=edited"
            )
        return
    yield from _choice_faults(section)
    yield from logits_faults(plan.config, SELF_FEEDING, "constraint.conditioning=teacher_forcing")


def _choice_faults(section: ConstraintSettings) -> Iterator[str]:
    if section.inject is Inject.SFT and section.tokens not in FITTING:
        yield (
            f"constraint.tokens={section.tokens}: as a differentiable term with {SELF_FEEDING} it "
            "teaches tokens in states that they do not belong to, which destroys the policy. Fix: "
            "constraint.tokens=aligned or first_edit, or constraint.conditioning=teacher_forcing"
        )
    if section.align is not Align.POSITION:
        yield (
            f"constraint.align={section.align}: with {SELF_FEEDING} each cross entropy belongs to "
            "the step that it was measured in. Fix: constraint.align=position, or "
            "constraint.conditioning=teacher_forcing"
        )


def logits_faults(config: DictConfig, asker: str, way_out: str) -> Iterator[str]:
    """Sentences on a pass in which something is read off the logits of the rows.

    Args:
        asker: the setting that reads them. way_out: one that does not.
    """
    for key, reason in WITHOUT_LOGITS:
        value = OmegaConf.select(config, key)
        if value:
            yield (
                f"{key}={value!r}: {asker} reads the logits in one of verl's passes over the rows, "
                f"and {reason}. Fix: {key}=null or false, or {way_out}"
            )
    strategy = config.actor_rollout_ref.actor.strategy
    if strategy not in ("fsdp", "fsdp2", "megatron"):
        yield (
            f"actor_rollout_ref.actor.strategy={strategy!r}: {asker} is written for FSDP "
            "and Megatron. Fix: actor_rollout_ref.actor.strategy=fsdp2"
        )
    if config.distillation.enabled:
        yield (
            f"distillation.enabled=True: {asker} reads logits by the hook of verl's "
            "distillation, which then has its own loss there. Fix: distillation.enabled=False"
        )

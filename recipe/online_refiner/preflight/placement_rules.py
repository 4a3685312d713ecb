"""Rules on where the refiner runs and which weights it has."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.online_refiner.choices import Mode, Placement, Source
from recipe.online_refiner.plan import RunPlan
from refiner_worker.engine import Decoding

IN_THE_ENGINE = (Decoding.NGRAM, Decoding.COPY)
"""Decoding methods that are set up when the servers start, for every request alike."""

_SEPARATE = f"trainer.v1.trainer_mode={Mode.SEPARATE_ASYNC}"


def check_mode(plan: RunPlan) -> Iterator[str]:
    """verl's modes that ours stands in for, and what each leaves for the refiner."""
    mode, refiner = plan.config.trainer.v1.trainer_mode, plan.settings.refiner
    if not plan.config.trainer.use_v1:
        yield "trainer.use_v1=False: verl's older trainer has no hooks. Fix: trainer.use_v1=True"
    if mode not in tuple(Mode):
        yield (
            f"trainer.v1.trainer_mode={mode!r}: the refiner is woken and put to sleep around the "
            f"steps of verl's own modes only. Fix: one of {', '.join(Mode)}"
        )
    if not plan.config.actor_rollout_ref.hybrid_engine and mode != Mode.SEPARATE_ASYNC:
        yield (
            f"actor_rollout_ref.hybrid_engine=False: with trainer.v1.trainer_mode={mode} the "
            "policy's servers are on the trainer's GPUs, whatever it says. Fix: "
            f"actor_rollout_ref.hybrid_engine=true, or {_SEPARATE}"
        )
    if mode == Mode.SYNC or not plan.refines:
        return
    placements = [Placement.POOL]
    if mode == Mode.COLOCATE_ASYNC:
        placements.insert(0, Placement.COLOCATED)
    if refiner.placement not in placements:
        yield (
            f"refiner.placement={refiner.placement}: with trainer.v1.trainer_mode={mode} the "
            f"refiner's GPUs would never be free for it. Fix: refiner.placement={placements[-1]}"
        )
    if refiner.source is Source.EMA:
        yield (
            f"refiner.source=ema: with trainer.v1.trainer_mode={mode} refinements are under way "
            "when weights are loaded. Fix: refiner.source=reference, or trainer_mode=sync"
        )
    if refiner.decoding is Decoding.VERIFY:
        yield (
            f"refiner.decoding=verify: with trainer.v1.trainer_mode={mode} a request may be "
            "interrupted, and loses its log-probabilities. Fix: refiner.decoding=plain"
        )


def check_late_join(plan: RunPlan) -> Iterator[str]:
    """A step can go on while it is still refined, if that is asked for."""
    if plan.settings.refiner.late_join and plan.refines:
        for obstacle in plan.late_join_obstacles:
            yield (
                f"refiner.late_join=True with {obstacle}. Fix: refiner.late_join=null, or change it"
            )


def check_source(plan: RunPlan) -> Iterator[str]:
    """Which weights refine, and whether they can be had."""
    if not plan.refines:
        return
    refiner, model = plan.settings.refiner, plan.config.actor_rollout_ref.model
    if refiner.source is Source.MODEL and refiner.model_path is None:
        yield (
            "refiner.model_path=None: refiner.source=model has another model refine. Fix: give "
            "its folder or hub id, or refiner.source=reference"
        )
    if refiner.source is not Source.MODEL and refiner.model_path is not None:
        yield (
            f"refiner.model_path={refiner.model_path!r}: refiner.source={refiner.source} does not "
            "use it. Fix: refiner.source=model, or leave refiner.model_path null"
        )
    if not plan.refines_by_average:
        return
    if adapter_rank(plan) > 0 and not model.lora.get("merge", False):
        yield (
            f"refiner.source=ema: of a policy trained by adapters (rank {adapter_rank(plan)}) "
            "there are no whole weights to average. Fix: actor_rollout_ref.model.lora.merge=True, "
            "or refiner.source=reference"
        )
    engine = plan.engine
    if engine != "vllm":
        yield (
            f"actor_rollout_ref.rollout.name={engine!r}: refiner.source=ema loads new weights by a "
            "call of vLLM's. Fix: refiner.rollout.name=vllm, or refiner.source=reference"
        )


def adapter_rank(plan: RunPlan) -> int:
    """The rank of the LoRA adapters that are trained; 0 if all weights are."""
    model = plan.config.actor_rollout_ref.model
    return int(max(model.lora.get("rank", 0), model.lora_rank))


def check_shared_base(plan: RunPlan) -> Iterator[str]:
    """The policy's servers can refine on their base weights only under adapters, on vLLM."""
    if not plan.shares_base:
        return
    model, refiner = plan.config.actor_rollout_ref.model, plan.settings.refiner
    placement = "refiner.placement=shared_base"
    if adapter_rank(plan) == 0:
        yield (
            f"actor_rollout_ref.model.lora_rank={model.lora_rank}: {placement} takes the policy's "
            "base weights for the reference, and without adapters they are trained. Fix: set a "
            "rank (and actor_rollout_ref.model.target_modules), or refiner.placement=colocated"
        )
    if model.lora.get("merge", False):
        yield (
            f"actor_rollout_ref.model.lora.merge=True: {placement} needs base weights that no "
            "adapter is merged into. Fix: set it to False, or refiner.placement=colocated"
        )
    engine = plan.config.actor_rollout_ref.rollout.name
    if engine != "vllm":
        yield (
            f"actor_rollout_ref.rollout.name={engine!r}: {placement} is written for vLLM's "
            "adapters. Fix: actor_rollout_ref.rollout.name=vllm, or refiner.placement=colocated"
        )
    if refiner.source is not Source.REFERENCE:
        yield (
            f"refiner.source={refiner.source}: {placement} has the policy's base weights and no "
            "others. Fix: refiner.source=reference, or refiner.placement=colocated"
        )
    if refiner.decoding in IN_THE_ENGINE:
        yield (
            f"refiner.decoding={refiner.decoding}: {placement} would set it up for the policy's "
            "rollouts as well. Fix: refiner.decoding=plain or verify"
        )

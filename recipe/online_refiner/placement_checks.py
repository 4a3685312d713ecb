"""Start-up checks of where the refiner runs and which weights it has."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from recipe.online_refiner.refiner_engine import engine_name
from recipe.online_refiner.settings import Settings
from refiner_worker.engine import Decoding

IN_THE_ENGINE = (Decoding.NGRAM, Decoding.SUFFIX, Decoding.COPY)
"""Ways of decoding that are set up when the servers start, for every request alike."""


MODES = ("sync", "colocate_async", "separate_async")
"""verl's trainer modes that ours stands in for; see `trainers.py`."""


def check_mode(config: DictConfig, settings: Settings) -> Iterator[str]:
    mode, refiner = config.trainer.v1.trainer_mode, settings.refiner
    if not config.trainer.use_v1:
        yield "trainer.use_v1=False: verl's older trainer has no hooks. Fix: trainer.use_v1=True"
    if mode not in MODES:
        yield (
            f"trainer.v1.trainer_mode={mode!r}: the refiner is woken and put to sleep around the "
            f"steps of verl's own modes only. Fix: one of {', '.join(MODES)}"
        )
    if mode == "sync" or not settings.refines:
        return
    placements = ("colocated", "pool") if mode == "colocate_async" else ("pool",)
    if refiner.placement not in placements:
        yield (
            f"refiner.placement={refiner.placement}: with trainer.v1.trainer_mode={mode} the "
            f"refiner's GPUs would never be free for it. Fix: refiner.placement={placements[-1]}"
        )
    if refiner.source == "ema":
        yield (
            f"refiner.source=ema: with trainer.v1.trainer_mode={mode} refinements are under way "
            "when weights are loaded. Fix: refiner.source=reference, or trainer_mode=sync"
        )
    if refiner.decoding is Decoding.VERIFY:
        yield (
            f"refiner.decoding=verify: with trainer.v1.trainer_mode={mode} a request may be "
            "interrupted, and loses its log-probabilities. Fix: refiner.decoding=plain"
        )


def check_placement(config: DictConfig, settings: Settings) -> Iterator[str]:
    if settings.refines:
        yield from _check_source(config, settings)
    if settings.shares_base:
        yield from _check_shared_base(config, settings)


def _check_source(config: DictConfig, settings: Settings) -> Iterator[str]:
    refiner, model = settings.refiner, config.actor_rollout_ref.model
    if refiner.source == "model" and refiner.model_path is None:
        yield (
            "refiner.model_path=None: refiner.source=model has another model refine. Fix: give "
            "its folder or hub id, or refiner.source=reference"
        )
    if refiner.source != "model" and refiner.model_path is not None:
        yield (
            f"refiner.model_path={refiner.model_path!r}: refiner.source={refiner.source} does not "
            "use it. Fix: refiner.source=model, or leave refiner.model_path null"
        )
    if not settings.refines_by_average:
        return
    if adapter_rank(config) > 0 and not model.lora.get("merge", False):
        yield (
            f"refiner.source=ema: of a policy trained by adapters (rank {adapter_rank(config)}) "
            "there are no whole weights to average. Fix: actor_rollout_ref.model.lora.merge=True, "
            "or refiner.source=reference"
        )
    engine = engine_name(config, settings)
    if engine != "vllm":
        yield (
            f"actor_rollout_ref.rollout.name={engine!r}: refiner.source=ema loads new weights by a "
            "call of vLLM's. Fix: refiner.rollout.name=vllm, or refiner.source=reference"
        )


def adapter_rank(config: DictConfig) -> int:
    """The rank of the LoRA adapters that are trained; 0 where all weights are."""
    model = config.actor_rollout_ref.model
    return int(max(model.lora.get("rank", 0), model.lora_rank))


def _check_shared_base(config: DictConfig, settings: Settings) -> Iterator[str]:
    model, refiner = config.actor_rollout_ref.model, settings.refiner
    placement = "refiner.placement=shared_base"
    if adapter_rank(config) == 0:
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
    engine = config.actor_rollout_ref.rollout.name
    if engine != "vllm":
        yield (
            f"actor_rollout_ref.rollout.name={engine!r}: {placement} is written for vLLM's "
            "adapters. Fix: actor_rollout_ref.rollout.name=vllm, or refiner.placement=colocated"
        )
    if refiner.source != "reference":
        yield (
            f"refiner.source={refiner.source}: {placement} has the policy's base weights and no "
            "others. Fix: refiner.source=reference, or refiner.placement=colocated"
        )
    if refiner.decoding in IN_THE_ENGINE:
        yield (
            f"refiner.decoding={refiner.decoding}: {placement} would set it up for the policy's "
            "rollouts as well. Fix: refiner.decoding=plain or verify"
        )

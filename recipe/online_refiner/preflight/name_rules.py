"""Rules on names that verl looks up late: engines, strategies, loggers, keys of an optimizer.

Those of its registries are in `registry_rules.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from omegaconf import OmegaConf

from recipe.online_refiner.plan import RunPlan, paths_of
from recipe.online_refiner.preflight.registry_rules import unknown_name

ENGINES = ("vllm", "sglang", "trtllm")
"""verl's inference engines."""
REFINING_ENGINES = ("vllm", "sglang")
"""Those that the refiner's servers are written for."""
STRATEGIES = ("fsdp", "fsdp2", "megatron", "veomni", "torchtitan", "automodel")
LOGGERS = (
    *("wandb", "mlflow", "swanlab", "vemlp_wandb", "tensorboard", "console", "clearml"),
    *("trackio", "file", "rl_insight", "tracking"),
)
"""verl's `Tracking.supported_backend`, and an older name of its."""
_SHARED_OPTIMIZER = (
    *("_target_", "lr", "lr_warmup_steps_ratio", "total_training_steps", "weight_decay"),
    *("lr_warmup_steps", "betas", "clip_grad", "grad_clip", "optimizer"),
    "override_optimizer_config",
)
OPTIMIZER_KEYS = {
    "fsdp": (
        *_SHARED_OPTIMIZER,
        *("optimizer_impl", "min_lr_ratio", "warmup_style", "lr_scheduler_type", "num_cycles"),
        "zero_indexed_step",
    ),
    "megatron": (
        *_SHARED_OPTIMIZER,
        *("lr_warmup_init", "lr_decay_steps", "lr_decay_style", "min_lr"),
        *("weight_decay_incr_style", "lr_wsd_decay_style", "lr_wsd_decay_steps"),
        *("use_checkpoint_opt_param_scheduler", "use_precision_aware_optimizer"),
        *("main_grads_dtype", "exp_avg_dtype", "exp_avg_sq_dtype"),
        *("use_layer_wise_distributed_optimizer", "use_layer_wise_param_layout"),
        *("muon_momentum", "muon_nesterov", "muon_split_qkv", "muon_scale_mode"),
        *("muon_coefficient_type", "muon_num_ns_steps", "muon_tp_mode", "muon_fp32_matmul_prec"),
        *("muon_extra_scale_factor", "muon_scalar_optimizer", "muon_match_adamw_update_rms"),
    ),
}
"""The fields of verl's optimizer classes; a test compares them. Another key ends the start."""
IN_MEGATRON = {
    "lr_scheduler_type": "lr_decay_style",
    "min_lr_ratio": "min_lr (a learning rate, not a share of one)",
}
"""What verl's keys for FSDP's schedule are called under Megatron."""


def check_engines(plan: RunPlan) -> Iterator[str]:
    """The inference engines are ones that verl has, and the refiner's one it is written for."""
    rollouts = {"actor_rollout_ref.rollout.name": plan.config.actor_rollout_ref.rollout.name}
    reward_model = plan.config.reward.reward_model
    if reward_model.enable and not OmegaConf.is_missing(reward_model.rollout, "name"):
        rollouts["reward.reward_model.rollout.name"] = reward_model.rollout.name
    for key, name in rollouts.items():
        yield from unknown_name(key, name, ENGINES)
    if plan.has_refiner_servers and plan.engine not in REFINING_ENGINES:
        key = "refiner.rollout.name"
        if "name" in plan.settings.refiner.rollout:
            yield from unknown_name(key, plan.engine, REFINING_ENGINES)
        elif plan.engine in ENGINES:
            yield (
                f"{key}: the refiner's servers would be {plan.engine}'s as the policy's, for which "
                f"they are not written. Fix: {key}=vllm or sglang"
            )


def check_strategies(plan: RunPlan) -> Iterator[str]:
    """Actor, reference and critic train in one process: one engine for all of them."""
    actor = plan.config.actor_rollout_ref.actor.strategy
    yield from unknown_name("actor_rollout_ref.actor.strategy", actor, STRATEGIES)
    if not plan.has_critic:
        return
    critic = plan.config.critic.strategy
    yield from unknown_name("critic.strategy", critic, STRATEGIES)
    if critic in STRATEGIES and actor in STRATEGIES and _family(critic) != _family(actor):
        yield (
            f"critic.strategy={critic}: the actor shares its processes, with "
            f"actor_rollout_ref.actor.strategy={actor}. Fix: strategy={_group(actor)} for both"
        )


def _family(strategy: str) -> str:
    """Both releases of FSDP are one engine of verl's."""
    return strategy.removesuffix("2")


def _group(strategy: str) -> str:
    return "megatron or megatron_tp8" if strategy == "megatron" else "fsdp2 or fsdp2_offload"


def check_loggers(plan: RunPlan) -> Iterator[str]:
    """verl's trackers are known by these names."""
    for name in paths_of(plan.config.trainer.logger):
        yield from unknown_name("trainer.logger", name, LOGGERS)


def check_optimizers(plan: RunPlan) -> Iterator[str]:
    """The optimizer's keys belong to the strategy; verl's class refuses others as it is made."""
    sections = {"actor_rollout_ref.actor.optim": plan.config.actor_rollout_ref.actor}
    if plan.has_critic:
        sections["critic.optim"] = plan.config.critic
    for key, section in sections.items():
        family = _family(str(section.strategy))
        known = OPTIMIZER_KEYS.get(family, ())
        for name in section.optim if known else ():
            if name not in known:
                yield (
                    f"{key}.{name}={section.optim[name]!r}: verl's optimizer under "
                    f"{section.strategy} has no such key. Fix: {_remedy(key, name, family, known)}"
                )


def _remedy(key: str, name: str, family: str, known: Iterable[str]) -> str:
    if family == "megatron" and name in IN_MEGATRON:
        return f"~{key}.{name} takes it away; under Megatron set {key}.{IN_MEGATRON[name]}"
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"~{key}.{name} takes it away"

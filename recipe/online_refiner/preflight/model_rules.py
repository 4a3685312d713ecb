"""Rules on models that read each other's tokens: vocabularies and tokenizers."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from recipe.online_refiner.choices import Source
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.files_read import (
    model_config,
    model_shape,
    read_policy_tokenizer,
    tokenizer,
)
from recipe.online_refiner.preflight.memory import ModelShape
from recipe.online_refiner.preflight.prompt_rules import is_unreadable
from recipe.online_refiner.resolve.chat import tokenizer_path

WRITES_NOTHING = ("Classification", "RewardModel", "QuestionAnswering", "ForMaskedLM")
"""How the architectures of models end that have no head for the next token."""


def check_writers(plan: RunPlan) -> Iterator[str]:
    """Policy and refiner write text; a trainer would give a classifier a head of random weights."""
    paths = {"actor_rollout_ref.model.path": plan.config.actor_rollout_ref.model.path}
    if _other_refiner(plan):
        paths["refiner.model_path"] = str(plan.settings.refiner.model_path)
    for key, path in paths.items():
        config = model_config(path)
        names = [] if isinstance(config, str) else list(config.architectures or [])
        if names and all(name.endswith(WRITES_NOTHING) for name in names):
            yield (
                f"{key}={path!r}: its config.json names the architecture {', '.join(names)}, which "
                "writes no text. Fix: a language model, whose architecture is a …ForCausalLM"
            )


def check_vocabulary(plan: RunPlan) -> Iterator[str]:
    """Each model that reads the policy's tokens has an embedding for all of them."""
    if is_unreadable(plan):
        return
    own = read_policy_tokenizer(plan)
    if isinstance(own, str):
        return  # `check_prompts` says so
    paths = {"actor_rollout_ref.model.path": plan.config.actor_rollout_ref.model.path}
    if plan.has_critic:
        paths["critic.model.path"] = plan.config.critic.model.path
    if _other_refiner(plan):
        paths["refiner.model_path"] = str(plan.settings.refiner.model_path)
    for key, path in paths.items():
        shape = model_shape(path)
        if isinstance(shape, ModelShape) and len(own) > shape.vocabulary:
            yield (
                f"{key}={path!r}: its embedding has {shape.vocabulary} rows, and the policy's "
                f"tokenizer {tokenizer_path(plan.config)!r} has {len(own)} tokens. Fix: the "
                "tokenizer that belongs to the model, or resize the model's embedding"
            )


def check_refiner_tokenizer(plan: RunPlan) -> Iterator[str]:
    """The refiner writes the policy's tokens: its tokenizer gives each of them the same id."""
    if not _other_refiner(plan) or is_unreadable(plan):
        return
    path = str(plan.settings.refiner.model_path)
    policy, refiner = read_policy_tokenizer(plan), tokenizer(path)
    if isinstance(policy, str):
        return
    named, fix = f"refiner.model_path={path!r}", "Fix: a model of the policy's family"
    if isinstance(refiner, str):
        yield f"{named}: its tokenizer could not be read ({refiner}). {fix}, with its tokenizer"
        return
    moved = _moved(policy, refiner)
    if moved:
        yield (
            f"{named}: its tokenizer is not the policy's, since {len(moved)} tokens have other ids "
            f"({moved[0]!r} first), and refinements are passed on as ids. {fix}"
        )


def _moved(policy: PreTrainedTokenizerBase, refiner: PreTrainedTokenizerBase) -> list[str]:
    """The policy's tokens that have another id there; ones that either adds do not count."""
    ours, theirs = policy.get_vocab(), refiner.get_vocab()
    shared = min(len(ours), len(theirs))
    moved = [
        token for token, number in ours.items() if number < shared and theirs.get(token) != number
    ]
    return sorted(moved, key=lambda token: ours[token])


def _other_refiner(plan: RunPlan) -> bool:
    refiner = plan.settings.refiner
    return plan.refines and refiner.source is Source.MODEL and refiner.model_path is not None

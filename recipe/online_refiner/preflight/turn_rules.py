"""Start-up checks of the ends of the policy's turns, its reasoning, and models that see images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transformers import PretrainedConfig

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.files_read import model_config, read_policy_tokenizer
from recipe.online_refiner.resolve.chat import policy_chat, tokenizer_path
from recipe.online_refiner.resolve.refiner_engine import end_ids
from refiner_worker.chat import Chat
from refiner_worker.reasoning import CLOSE, OPEN

SENSES = ("vision_config", "audio_config")
"""Parts of a model's config by which it takes more than text."""


def turn_faults(plan: RunPlan, chat: Chat) -> Iterator[str]:
    """Refuse a tokenizer whose end token begins turns, and demonstrations learnt as reasoning."""
    end, eos = chat.end, chat.tokenizer.eos_token_id
    named = end_ids(plan.config.actor_rollout_ref.model.path)
    written = frozenset() if end.template_id is None else frozenset({end.template_id})
    if eos in end.template_opens_with and (named or written) and eos not in named | written:
        yield (
            f"actor_rollout_ref.model.path={tokenizer_path(plan.config)!r}: its tokenizer's "
            f"eos_token {chat.tokenizer.eos_token!r} begins turns and ends none: its chat "
            f"template ends them with {_names(chat, written)}, and generation_config.json names "
            f"{_names(chat, named)}. Fix: set eos_token to {_names(chat, written or named)} in "
            "tokenizer_config.json"
        )
    if plan.settings.constraint.kind == "chord" and chat.opens_reasoning:
        yield (
            f"constraint.kind=chord: the chat template ends prompts with {OPEN}, so that the "
            "reference solutions, which hold no reasoning, would be learnt as reasoning. Fix: "
            "+data.apply_chat_template_kwargs.enable_thinking=false if the template knows it, or "
            "constraint.kind=dynamic"
        )


def sense_faults(plan: RunPlan) -> Iterator[str]:
    """Refuse to refine, or to add to the update of, a model that also takes images or sound.

    Its rows carry images and positions in several dimensions; the rows that are added are text.
    """
    path = plan.config.actor_rollout_ref.model.path
    config = model_config(path)
    senses = [] if isinstance(config, str) else _senses(config)
    if not senses:
        return
    if plan.refines or plan.needs.own_loss:
        yield (
            f"actor_rollout_ref.model.path={path!r} takes more than text ({', '.join(senses)}): "
            f"with constraint.kind={plan.settings.constraint.kind} and refiner.observe="
            f"{plan.settings.refiner.observe} the refiner and the rows added to its batches would "
            "be text alone. Fix: a text model, or constraint.kind=none or static_kl with "
            "refiner.observe=false"
        )


def turn_warnings(plan: RunPlan) -> Iterator[str]:
    """What the model's files say of the end of a turn, if they disagree; nothing if unreadable."""
    tokenizer = read_policy_tokenizer(plan)
    if isinstance(tokenizer, str):
        return  # `check_prompts` says what is wrong with it
    try:
        chat = policy_chat(plan.config, tokenizer)
    except ValueError:
        return
    if any(turn_faults(plan, chat)):
        return
    path = f"actor_rollout_ref.model.path={tokenizer_path(plan.config)!r}"
    end, eos = chat.end, chat.tokenizer.eos_token_id
    named = end_ids(plan.config.actor_rollout_ref.model.path)
    learnt = _names(chat, [end.id])
    if end.template_id is not None and end.template_id not in end.stop_ids:
        yield (
            f"{path}: its chat template ends a turn with {_names(chat, [end.template_id])}, and "
            f"generation does not stop there but at {_names(chat, end.stop_ids)}: a model that "
            f"writes it goes on. Refinements end with {learnt}. For an instruct model, name it in "
            "eos_token_id of generation_config.json"
        )
    elif named and eos is not None and eos not in named:
        yield (
            f"{path}: its tokenizer's eos_token {chat.tokenizer.eos_token!r} is not among the "
            f"eos_token_id of its generation_config.json, {_names(chat, named)}: rollouts stop at "
            f"either, refinements end with {learnt}, other programs may differ. Name it there, or "
            "set eos_token in tokenizer_config.json"
        )
    if plan.settings.constraint.kind == "chord" and _may_reason(chat):
        yield (
            f"constraint.kind=chord: the chat template of {path} lets the model reason first, and "
            "the reference solutions hold no reasoning: they teach it to leave it out. "
            "+data.apply_chat_template_kwargs.enable_thinking=false asks for none, if the template "
            "knows it"
        )


def _may_reason(chat: Chat) -> bool:
    prompt = chat.prompt([{"role": "user", "content": "ask"}])
    return OPEN in str(chat.tokenizer.chat_template) and CLOSE not in prompt


def _senses(config: PretrainedConfig) -> list[str]:
    return [name for name in SENSES if getattr(config, name, None) is not None]


def _names(chat: Chat, ids: Iterable[int]) -> str:
    tokens = chat.tokenizer.convert_ids_to_tokens(sorted(ids))
    return ", ".join(repr(token) for token in tokens) or "nothing"

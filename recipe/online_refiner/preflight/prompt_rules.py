"""Rules on prompts: they can be written, are short enough, and enough of them are left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from recipe.online_refiner.plan import RunPlan, paths_of
from recipe.online_refiner.preflight.data_rules import check_files, check_model_folders
from recipe.online_refiner.preflight.files_read import model_config, read_policy_tokenizer
from recipe.online_refiner.preflight.shapes import check_shapes
from recipe.online_refiner.preflight.turn_rules import sense_faults, turn_faults
from recipe.online_refiner.resolve.chat import TemplateFault, policy_chat, tokenizer_path
from refiner_worker.chat import Chat

MAX_ROWS_MEASURED = 2000
"""Prompts whose length is measured at start; the longest by characters are taken first."""
LEAST_PROMPT_TOKENS = 64
"""Below this no prompt of the refiner's would hold a problem and a response."""


def is_unreadable(plan: RunPlan) -> bool:
    """Whether other rules say already that data or models cannot be read."""
    rules = (check_files, check_model_folders, check_shapes)
    return any(fault for rule in rules for fault in rule(plan))


def chat_of(plan: RunPlan) -> Chat | None:
    """How the policy's chats are written; None if `check_prompts` says why that is unknown."""
    if is_unreadable(plan):
        return None
    tokenizer = read_policy_tokenizer(plan)
    if isinstance(tokenizer, str) or tokenizer.chat_template is None:
        return None
    try:
        return policy_chat(plan.config, tokenizer)
    except ValueError:
        return None


def check_prompts(plan: RunPlan) -> Iterator[str]:
    """The tokenizer can be read, writes prompts that are not too long, and ends turns."""
    if is_unreadable(plan):
        return
    model = f"actor_rollout_ref.model.path={tokenizer_path(plan.config)!r}"
    tokenizer = read_policy_tokenizer(plan)
    if isinstance(tokenizer, str):
        yield (
            f"{model}: its tokenizer could not be read ({tokenizer}). Fix: check the name, or "
            "download it where there is a network (hf download NAME) and give the folder"
        )
        return
    if tokenizer.chat_template is None:
        yield (
            f"{model}: its tokenizer has no chat template, by which prompts are written. Fix: "
            "take an instruct model, or set actor_rollout_ref.model.custom_chat_template"
        )
        return
    refused = list(sense_faults(plan))
    if refused:
        yield from refused
        return
    try:
        chat = policy_chat(plan.config, tokenizer)
    except TemplateFault as error:
        yield (
            f"{model}: {error}. Fix: actor_rollout_ref.model.custom_chat_template=null, or one "
            "that writes a message of a user and its reply"
        )
        return
    except ValueError as error:
        yield (
            f"{model}: {error}, so no response would end. Fix: set eos_token in "
            "tokenizer_config.json"
        )
        return
    yield from turn_faults(plan, chat)
    yield from _check_lengths(plan, chat)


def _check_lengths(plan: RunPlan, chat: Chat) -> Iterator[str]:
    for key, enough in (("train_files", plan.config.data.train_batch_size), ("val_files", 1)):
        paths = paths_of(plan.config.data[key])
        if plan.config.data.filter_overlong_prompts:
            yield from _check_what_is_left(plan, chat, key, enough)
            continue
        for path in paths:
            yield from _check_longest(plan, chat, key, path)


def _check_longest(plan: RunPlan, chat: Chat, key: str, path: str) -> Iterator[str]:
    """Nothing is left out, so no prompt may be too long."""
    limit = plan.config.data.max_prompt_length
    lengths = _lengths(_by_characters(path)[-MAX_ROWS_MEASURED:], chat)
    over = sum(length > limit for length in lengths)
    if over:
        yield (
            f"data.max_prompt_length={limit}: {over} prompts of data.{key}={path!r} are "
            f"longer, up to {max(lengths)} tokens. Fix: data.max_prompt_length="
            f"{max(lengths)}, or data.filter_overlong_prompts=True to leave them out"
        )


def _check_what_is_left(plan: RunPlan, chat: Chat, key: str, enough: int) -> Iterator[str]:
    """verl leaves out prompts that are too long, and asserts that a batch is left.

    The shortest by characters are measured first, until there are enough.
    """
    limit, left, shortest = plan.config.data.max_prompt_length, 0, None
    for path in paths_of(plan.config.data[key]):
        prompts = _by_characters(path)
        for start in range(0, len(prompts), MAX_ROWS_MEASURED):
            lengths = _lengths(prompts[start : start + MAX_ROWS_MEASURED], chat)
            left += sum(length <= limit for length in lengths)
            shortest = min(lengths) if shortest is None else min(shortest, *lengths)
            if left >= enough:
                return
    if shortest is not None and left < max(enough, 1):
        asked = f", fewer than data.train_batch_size={enough}" if enough > 1 and left else ""
        yield (
            f"data.max_prompt_length={limit}: data.filter_overlong_prompts=True leaves {left} "
            f"prompts of data.{key}{asked}; the shortest has {shortest} tokens. Fix: a larger "
            "data.max_prompt_length"
        )


def _by_characters(path: str) -> list[Sequence[dict[str, str]]]:
    prompts = pq.read_table(path, columns=["prompt"])["prompt"].to_pylist()
    prompts.sort(key=lambda messages: sum(len(message["content"]) for message in messages))
    return prompts


def _lengths(prompts: Sequence[Sequence[dict[str, str]]], chat: Chat) -> list[int]:
    texts = [chat.prompt(list(messages)) for messages in prompts]
    return [len(ids) for ids in chat.tokenizer(texts, add_special_tokens=False)["input_ids"]]


def context_of(path: str) -> int | None:
    """Tokens that the model was made for; None if its config does not say, or is not read."""
    config = model_config(path)
    if isinstance(config, str):
        return None
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def check_context(plan: RunPlan) -> Iterator[str]:
    """The policy's longest sequences fit its model, and its servers' length."""
    data, rollout = plan.config.data, plan.config.actor_rollout_ref.rollout
    context = context_of(plan.config.actor_rollout_ref.model.path)
    needed = data.max_prompt_length + data.max_response_length
    if context is not None and needed > context:
        yield (
            f"data.max_prompt_length + data.max_response_length = {needed} exceeds the model's "
            f"context of {context} tokens. Fix: lower one of them"
        )
    elif context is not None and rollout.max_model_len > context and not plan.shares_base:
        yield (
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len}: the model's context "
            f"has {context} tokens. Fix: actor_rollout_ref.rollout.max_model_len=null"
        )
    for own, length in (("prompt_length", data.max_prompt_length),
                        ("response_length", data.max_response_length)):  # fmt: skip
        if rollout[own] != length:
            key = f"actor_rollout_ref.rollout.{own}"
            yield (
                f"{key}={rollout[own]}: verl cuts there, whatever data.max_{own}={length} says. "
                f"Fix: {key}={length}"
            )
    if rollout.max_model_len < needed:
        yield (
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len}: responses to long "
            f"prompts would end early, since data.max_prompt_length + data.max_response_length = "
            f"{needed}. Fix: actor_rollout_ref.rollout.max_model_len=null"
        )


def check_refiner_context(plan: RunPlan) -> Iterator[str]:
    """The refiner's longest prompt and response fit the model that refines."""
    if not plan.refines:
        return
    key, path = "actor_rollout_ref.model.path", plan.config.actor_rollout_ref.model.path
    if plan.settings.refiner.model_path is not None:
        key, path = "refiner.model_path", plan.settings.refiner.model_path
    context, needed = context_of(path), plan.limits.context_tokens
    if context is None or needed <= context:
        return
    room = plan.limits.max_prompt_tokens + context - needed
    if room >= LEAST_PROMPT_TOKENS:
        fix = f"refiner.max_prompt_length={room} or less; longer ones go unrefined"
    else:
        fix = (
            "shorter data.max_response_length, refiner.block_tokens with a template that has "
            "{before} and shorter refiner.max_prompt_length, or a refiner.model_path with a "
            "longer context"
        )
    yield (
        f"refiner.max_prompt_length={plan.settings.refiner.max_prompt_length}: the refiner needs "
        f"{needed} tokens of context, and {key}={path!r} has {context}. Fix: {fix}"
    )

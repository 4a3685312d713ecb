"""Start-up checks: everything that can be known to fail is refused before Ray or a model starts.

Each check yields sentences that name the key, its value and the fix. All faults are reported
together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig
from transformers import AutoConfig

from recipe.online_refiner.budgets import refine_limits, refiner_model_length
from recipe.online_refiner.chat import policy_chat, policy_tokenizer, tokenizer_path
from recipe.online_refiner.constraint_checks import (
    check_combinations,
    check_injection,
    check_schedules,
    paths_of,
)
from recipe.online_refiner.placement_checks import check_mode, check_placement
from recipe.online_refiner.settings import ConfigError, Settings
from recipe.online_refiner.template_checks import check_template_use
from recipe.online_refiner.turn_checks import check_senses, check_turns
from refiner_worker.chat import Chat
from refiner_worker.prompts import load_template, render

COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")
MAX_ROWS_MEASURED = 2000
"""Prompts whose length is measured at start; the longest by characters are taken first."""


def check(config: DictConfig, settings: Settings) -> None:
    """Raise ConfigError with every fault found in the combination of verl's keys and ours."""
    faults = [fault for rule in _RULES for fault in rule(config, settings)]
    if not faults:
        faults = list(_check_prompts(config, settings))
    if faults:
        raise ConfigError("\n".join(faults))


def _check_files(config: DictConfig, settings: Settings) -> Iterator[str]:
    for key in ("train_files", "val_files"):
        for path in paths_of(config.data[key]):
            yield from _check_parquet(f"data.{key}", path)


def _check_parquet(key: str, path: str) -> Iterator[str]:
    prepare = "Fix: prepare the data (scripts/prepare_apps.py) and give the path it prints"
    if not Path(path).is_file():
        yield f"{key}={path!r}: no such file. {prepare}"
        return
    try:
        schema = pq.read_schema(path)
        rows = pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        yield f"{key}={path!r}: not a parquet file ({error}). {prepare}"
        return
    missing = [column for column in COLUMNS if column not in schema.names]
    if missing:
        yield f"{key}={path!r}: columns {', '.join(missing)} are missing. {prepare}"
    if rows == 0:
        yield f"{key}={path!r}: it has no rows. {prepare}"


def _check_batch(config: DictConfig, settings: Settings) -> Iterator[str]:
    batch = config.data.train_batch_size
    mini_batch = config.actor_rollout_ref.actor.ppo_mini_batch_size
    if batch < mini_batch:
        yield (
            f"data.train_batch_size={batch} is below actor_rollout_ref.actor.ppo_mini_batch_size="
            f"{mini_batch}: no mini-batch would be full. Fix: lower the mini-batch"
        )
    paths = [path for path in paths_of(config.data.train_files) if Path(path).is_file()]
    try:
        rows = sum(pq.read_metadata(path).num_rows for path in paths)
    except (pa.ArrowInvalid, OSError):
        return
    if 0 < rows < batch:
        yield (
            f"data.train_batch_size={batch} is above the {rows} rows of data.train_files: no step "
            f"would run. Fix: data.train_batch_size={rows} or less"
        )


def _check_model(config: DictConfig, settings: Settings) -> Iterator[str]:
    model = config.actor_rollout_ref.model
    keys = {"actor_rollout_ref.model.path": model.path}
    if settings.refines and settings.refiner.model_path is not None:
        keys["refiner.model_path"] = settings.refiner.model_path
    for key, path in keys.items():
        looks_local = os.path.isabs(path) or path.startswith((".", "~"))
        if looks_local and not (Path(path).expanduser() / "config.json").is_file():
            yield (
                f"{key}={path!r}: no model folder with a config.json is there. Fix: give the path "
                "of a Hugging Face model folder, or a hub id"
            )


def _check_template(config: DictConfig, settings: Settings) -> Iterator[str]:
    try:
        template = load_template(settings.refiner.template)
    except (ValueError, OSError) as error:
        yield f"refiner.template={settings.refiner.template!r}: {error}"
        return
    if settings.refines:
        yield from check_template_use(config, settings, template)


_RULES: tuple[Callable[[DictConfig, Settings], Iterator[str]], ...] = (
    check_mode,
    check_combinations,
    check_injection,
    check_schedules,
    check_placement,
    _check_files,
    _check_batch,
    _check_model,
    _check_template,
)


def _check_prompts(config: DictConfig, settings: Settings) -> Iterator[str]:
    """Checks that need the tokenizer and the data; run once nothing else is wrong."""
    refused = list(check_senses(config, settings))
    if refused:
        yield from refused
        return
    tokenizer = policy_tokenizer(config)
    if tokenizer.chat_template is None:
        yield (
            f"actor_rollout_ref.model.path={tokenizer_path(config)!r}: its tokenizer has no chat "
            "template, by which prompts are written. Fix: take an instruct model, or set "
            "actor_rollout_ref.model.custom_chat_template"
        )
        return
    try:
        chat = policy_chat(config, tokenizer)
    except ValueError as error:
        yield (
            f"actor_rollout_ref.model.path={tokenizer_path(config)!r}: {error}, so no response "
            "would end. Fix: set eos_token in tokenizer_config.json"
        )
        return
    yield from check_turns(config, settings, chat)
    yield from _check_lengths(config, settings, chat)
    yield from _check_context(config, settings)


def _check_lengths(config: DictConfig, settings: Settings, chat: Chat) -> Iterator[str]:
    limit = config.data.max_prompt_length
    for key in ("train_files", "val_files"):
        for path in paths_of(config.data[key]):
            lengths = _longest_prompts(path, chat)
            over = sum(length > limit for length in lengths)
            if over and not config.data.filter_overlong_prompts:
                yield (
                    f"data.max_prompt_length={limit}: {over} prompts of data.{key}={path!r} are "
                    f"longer, up to {max(lengths)} tokens. Fix: data.max_prompt_length="
                    f"{max(lengths)}, or data.filter_overlong_prompts=True to leave them out"
                )
    if settings.refines:
        yield from _check_template_budget(config, settings, chat)


def _longest_prompts(path: str, chat: Chat) -> list[int]:
    prompts = pq.read_table(path, columns=["prompt"])["prompt"].to_pylist()
    prompts.sort(key=lambda messages: -sum(len(message["content"]) for message in messages))
    texts = [chat.prompt(messages) for messages in prompts[:MAX_ROWS_MEASURED]]
    return [len(ids) for ids in chat.tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _check_template_budget(config: DictConfig, settings: Settings, chat: Chat) -> Iterator[str]:
    messages = render(
        load_template(settings.refiner.template), [{"role": "user", "content": ""}], ""
    )
    words = len(chat.prompt_ids(messages))
    limit = refine_limits(config, settings).max_prompt_tokens
    if words >= limit:
        yield (
            f"refiner.max_prompt_length={limit}: the words of refiner.template="
            f"{settings.refiner.template!r} alone take {words} tokens, so nothing could be "
            f"refined. Fix: raise it to {words} plus a prompt and an answer"
        )


def _check_context(config: DictConfig, settings: Settings) -> Iterator[str]:
    path = settings.refiner.model_path or config.actor_rollout_ref.model.path
    context = AutoConfig.from_pretrained(path).get_text_config().max_position_embeddings
    needed = config.data.max_prompt_length + config.data.max_response_length
    if needed > context:
        yield (
            f"data.max_prompt_length + data.max_response_length = {needed} exceeds the model's "
            f"context of {context} tokens. Fix: lower one of them"
        )
    limits = refine_limits(config, settings)
    refiner_needs = refiner_model_length(limits)
    if settings.refines and refiner_needs > context:
        yield (
            f"refiner.max_prompt_length={settings.refiner.max_prompt_length}: the refiner needs "
            f"{refiner_needs} tokens of context and has {context}. Fix: set "
            f"refiner.max_prompt_length={limits.max_prompt_tokens + context - refiner_needs} or "
            "less; longer ones go unrefined"
        )

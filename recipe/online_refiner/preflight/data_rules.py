"""Rules on data, models and lengths: what can be read, and whether prompts and responses fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoConfig

from recipe.online_refiner.plan import RunPlan, paths_of
from recipe.online_refiner.preflight.sizes import check_shapes
from recipe.online_refiner.preflight.turn_rules import sense_faults, turn_faults
from recipe.online_refiner.servers.chat import policy_chat, policy_tokenizer, tokenizer_path
from refiner_worker.chat import Chat

COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")
MAX_ROWS_MEASURED = 2000
"""Prompts whose length is measured at start; the longest by characters are taken first."""


def check_files(plan: RunPlan) -> Iterator[str]:
    """The data are parquet files with the columns that verl and the judge read."""
    for key in ("train_files", "val_files"):
        for path in paths_of(plan.config.data[key]):
            yield from _check_parquet(f"data.{key}", path)


def _check_parquet(key: str, path: str) -> Iterator[str]:
    prepare = (
        "Fix: prepare the data (python -m recipe.data.prepare_apps) and give the path it prints"
    )
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


def check_batch(plan: RunPlan) -> Iterator[str]:
    """A batch holds a mini-batch, and the data hold a batch."""
    batch = plan.config.data.train_batch_size
    mini_batch = plan.config.actor_rollout_ref.actor.ppo_mini_batch_size
    if batch < mini_batch:
        yield (
            f"data.train_batch_size={batch} is below actor_rollout_ref.actor.ppo_mini_batch_size="
            f"{mini_batch}: no mini-batch would be full. Fix: lower the mini-batch"
        )
    paths = [path for path in paths_of(plan.config.data.train_files) if Path(path).is_file()]
    try:
        rows = sum(pq.read_metadata(path).num_rows for path in paths)
    except (pa.ArrowInvalid, OSError):
        return
    if 0 < rows < batch:
        yield (
            f"data.train_batch_size={batch} is above the {rows} rows of data.train_files: no step "
            f"would run. Fix: data.train_batch_size={rows} or less"
        )


def check_model_folders(plan: RunPlan) -> Iterator[str]:
    """A path that looks local is a model folder."""
    model = plan.config.actor_rollout_ref.model
    keys = {"actor_rollout_ref.model.path": model.path}
    if plan.refines and plan.settings.refiner.model_path is not None:
        keys["refiner.model_path"] = plan.settings.refiner.model_path
    for key, path in keys.items():
        looks_local = os.path.isabs(path) or path.startswith((".", "~"))
        if looks_local and not (Path(path).expanduser() / "config.json").is_file():
            yield (
                f"{key}={path!r}: no model folder with a config.json is there. Fix: give the path "
                "of a Hugging Face model folder, or a hub id"
            )


def _is_unreadable(plan: RunPlan) -> bool:
    """Whether other rules say already that data or models cannot be read."""
    rules = (check_files, check_model_folders, check_shapes)
    return any(fault for rule in rules for fault in rule(plan))


def chat_of(plan: RunPlan) -> Chat | None:
    """How the policy's chats are written; None if `check_prompts` says why that is unknown."""
    if _is_unreadable(plan):
        return None
    try:
        tokenizer = policy_tokenizer(plan.config)
        return None if tokenizer.chat_template is None else policy_chat(plan.config, tokenizer)
    except (OSError, ValueError):  # transformers has no class of its own for these
        return None


def check_prompts(plan: RunPlan) -> Iterator[str]:
    """The tokenizer can be read, writes prompts that are not too long, and ends turns."""
    if _is_unreadable(plan):
        return
    model = f"actor_rollout_ref.model.path={tokenizer_path(plan.config)!r}"
    try:
        tokenizer = policy_tokenizer(plan.config)
    except (OSError, ValueError) as error:
        yield (
            f"{model}: its tokenizer could not be read "
            f"({str(error).splitlines()[0][:120]}). Fix: check the name, or download it first"
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
    except ValueError as error:
        yield (
            f"{model}: {error}, so no response would end. Fix: set eos_token in "
            "tokenizer_config.json"
        )
        return
    yield from turn_faults(plan, chat)
    yield from _check_lengths(plan, chat)


def _check_lengths(plan: RunPlan, chat: Chat) -> Iterator[str]:
    limit = plan.config.data.max_prompt_length
    for key in ("train_files", "val_files"):
        for path in paths_of(plan.config.data[key]):
            lengths = _longest_prompts(path, chat)
            over = sum(length > limit for length in lengths)
            if over and not plan.config.data.filter_overlong_prompts:
                yield (
                    f"data.max_prompt_length={limit}: {over} prompts of data.{key}={path!r} are "
                    f"longer, up to {max(lengths)} tokens. Fix: data.max_prompt_length="
                    f"{max(lengths)}, or data.filter_overlong_prompts=True to leave them out"
                )


def _longest_prompts(path: str, chat: Chat) -> list[int]:
    prompts = pq.read_table(path, columns=["prompt"])["prompt"].to_pylist()
    prompts.sort(key=lambda messages: -sum(len(message["content"]) for message in messages))
    texts = [chat.prompt(messages) for messages in prompts[:MAX_ROWS_MEASURED]]
    return [len(ids) for ids in chat.tokenizer(texts, add_special_tokens=False)["input_ids"]]


def check_context(plan: RunPlan) -> Iterator[str]:
    """The policy's and the refiner's longest sequences fit the model."""
    if _is_unreadable(plan):
        return
    path = plan.settings.refiner.model_path or plan.config.actor_rollout_ref.model.path
    context = AutoConfig.from_pretrained(path).get_text_config().max_position_embeddings
    needed = plan.config.data.max_prompt_length + plan.config.data.max_response_length
    if needed > context:
        yield (
            f"data.max_prompt_length + data.max_response_length = {needed} exceeds the model's "
            f"context of {context} tokens. Fix: lower one of them"
        )
    limits, refiner_needs = plan.limits, plan.limits.context_tokens
    if plan.refines and refiner_needs > context:
        yield (
            f"refiner.max_prompt_length={plan.settings.refiner.max_prompt_length}: the refiner "
            f"needs {refiner_needs} tokens of context and has {context}. Fix: set "
            f"refiner.max_prompt_length={limits.max_prompt_tokens + context - refiner_needs} or "
            "less; longer ones go unrefined"
        )

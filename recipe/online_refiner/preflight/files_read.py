"""What the rules read of files, each read once however many rules ask: models, tokenizers, tables.

What was read is forgotten when the file changes. Nothing here judges: a reason why a file could not
be read is returned as it is, and a rule makes a sentence of it.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.memory import ModelShape
from recipe.online_refiner.resolve.chat import tokenizer_at, tokenizer_path
from recipe.online_refiner.resolve.hub import unread_name

Stamp = tuple[tuple[int, int], ...]
REASON_CHARACTERS = 120


@dataclass(frozen=True)
class Table:
    """A parquet file: its columns and rows, or why it could not be read.

    `prompts_are_chats`: whether its column `prompt` has lists of messages with role and content.
    """

    columns: tuple[str, ...] = ()
    rows: int = 0
    prompts_are_chats: bool = True
    unread: str = ""


def table(path: str) -> Table:
    """What the file's footer says."""
    return _table(path, _stamp(path))


@functools.lru_cache(maxsize=32)
def _table(path: str, stamp: Stamp) -> Table:
    if not Path(path).is_file():
        return Table(unread="no such file")
    try:
        schema = pq.read_schema(path)
        rows = pq.read_metadata(path).num_rows
        return Table(tuple(schema.names), rows, _has_chats(schema))
    except (pa.ArrowInvalid, OSError) as error:
        return Table(unread=f"not a parquet file ({error})")


def _has_chats(schema: pa.Schema) -> bool:
    if "prompt" not in schema.names:
        return True  # the rule on columns says so
    kind = schema.field("prompt").type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    message = kind.value_type
    names = [field.name for field in message] if pa.types.is_struct(message) else []
    return {"role", "content"} <= set(names)


def model_config(path: str) -> PretrainedConfig | str:
    """A model's config.json, or why it could not be read; a hub id is looked up once."""
    folder = os.path.expanduser(path)
    return _model_config(folder, _stamp(folder, "config.json"))


@functools.lru_cache(maxsize=32)
def _model_config(folder: str, stamp: Stamp) -> PretrainedConfig | str:
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return unread_name(folder) or _reason(error)


def model_shape(path: str | None) -> ModelShape | str:
    """The sizes of a decoder, or why they could not be read."""
    if path is None:
        return "no model is named"
    config = model_config(path)
    if isinstance(config, str):
        return config
    try:
        return ModelShape.from_config(config.get_text_config().to_dict())
    except KeyError as error:
        return _reason(error)


def tokenizer(path: str, chat_template: str | None = None) -> PreTrainedTokenizerBase | str:
    """A tokenizer, or why it could not be read. It is shared: nobody may change it."""
    folder = os.path.expanduser(path)
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return _tokenizer(folder, chat_template, _stamp(folder, *names))


@functools.lru_cache(maxsize=8)
def _tokenizer(
    folder: str, chat_template: str | None, stamp: Stamp
) -> PreTrainedTokenizerBase | str:
    try:
        return tokenizer_at(folder, chat_template)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return unread_name(folder) or _reason(error)


def read_policy_tokenizer(plan: RunPlan) -> PreTrainedTokenizerBase | str:
    """The policy's tokenizer with the run's chat template, or why it could not be read."""
    custom: Any = plan.config.actor_rollout_ref.model.get("custom_chat_template")
    return tokenizer(tokenizer_path(plan.config), custom)


def _stamp(path: str, *names: str) -> Stamp:
    """Sizes and times of the files; nothing for a hub id."""
    files = [Path(path, name) for name in names] or [Path(path)]
    found = [file.stat() for file in files if file.is_file()]
    return tuple((one.st_mtime_ns, one.st_size) for one in found)


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:REASON_CHARACTERS]

"""Prompt-Collection (OpenRLHF/prompt-collection-v0.1) to verl's parquet.

A record has `context_messages`, a list of {role, content}; `dataset`, which of the collection's six
sources it comes from; and `id`. The `context` column repeats the conversation as one text and is
not used. The collection has one split; validation rows are held out by a hash of the conversation,
so that a conversation stays on its side when other records come or go.

`prepare` writes `train.parquet`, `validation.parquet`, `quarantine.jsonl` (every record left out,
with its reason) and `data_card.json`. Rows and quarantined records add up to what was read; the
same source and options give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from recipe.data.files import write_json, write_json_lines, write_parquet
from recipe.data.rows import Malformed, is_encodable, readable_name, row_schema
from recipe.data.sources import Item, SourceError, Unreadable, open_source

DATA_SOURCE = "prompt_collection"
SPLITS = ("train", "validation")
UNNAMED_SUBSET = "unnamed"
SCHEMA = row_schema(subset=pa.string(), turns=pa.int64(), conversation=pa.string())

Message = dict[str, str]


@dataclass(frozen=True)
class PrepareOptions:
    """How records become rows. Sizes are in characters; None keeps every subset and record."""

    validation_rows: int = 512
    max_conversation_chars: int = 20_000
    max_turns: int = 40
    subsets: frozenset[str] | None = None
    max_records: int | None = None


@dataclass(frozen=True)
class Conversation:
    """One usable record: alternating messages that end with the user's."""

    identity: str
    subset: str
    messages: list[Message]
    digest: str


@dataclass(frozen=True)
class Converted:
    """Conversations and quarantine entries, both in source order."""

    conversations: list[Conversation]
    quarantined: list[dict[str, str]]


def prepare(source: str, out: Path, options: PrepareOptions | None = None) -> dict[str, Any]:
    """Write the dataset of `source` into `out` and return the data card.

    Raises SourceError if the source is missing, or leaves too few rows for both splits.
    """
    options = options or PrepareOptions()
    items = open_source(source, ("train",))["train"]
    bar = tqdm(items, desc="reading", unit="record", disable=None)
    converted = convert(bar, options)
    usable = len(converted.conversations)
    if usable <= options.validation_rows:
        reasons = Counter(entry["reason"] for entry in converted.quarantined).most_common(3)
        raise SourceError(
            f"--source {source}: {usable} usable conversations, and --validation-rows takes "
            f"{options.validation_rows} of them; most frequent reasons: {reasons}"
        )
    splits = hold_out(converted.conversations, options.validation_rows)
    out.mkdir(parents=True, exist_ok=True)
    for split, conversations in splits.items():
        rows = [to_row(one, split, index) for index, one in enumerate(conversations)]
        write_parquet(out / f"{split}.parquet", pa.Table.from_pylist(rows, schema=SCHEMA))
    write_json_lines(out / "quarantine.jsonl", converted.quarantined)
    card = describe(splits, converted.quarantined)
    write_json(out / "data_card.json", card)
    return card


def convert(items: Iterable[Item], options: PrepareOptions) -> Converted:
    """Items to conversations. A malformed or repeated one is quarantined with its reason."""
    conversations: list[Conversation] = []
    quarantined: list[dict[str, str]] = []
    seen: set[str] = set()
    for place, item in enumerate(items):
        if options.max_records is not None and place >= options.max_records:
            break
        try:
            conversation = to_conversation(item, place, options)
            if conversation.digest in seen:
                raise Malformed("the same conversation came before")
            seen.add(conversation.digest)
            conversations.append(conversation)
        except Malformed as reason:
            quarantined.append({"record": _identity(item, place), "reason": str(reason)})
    return Converted(conversations, quarantined)


def to_conversation(item: Item, place: int, options: PrepareOptions) -> Conversation:
    """The conversation of one record. Raises Malformed with the reason."""
    if isinstance(item, Unreadable):
        raise Malformed(item.reason)
    subset = item.get("dataset") or UNNAMED_SUBSET
    if not isinstance(subset, str):
        raise Malformed(f"dataset is {_kind(subset)}, not text")
    if not is_encodable(subset):
        raise Malformed("dataset holds half a character (a lone surrogate)")
    if options.subsets is not None and subset not in options.subsets:
        raise Malformed(f"the subset {subset!r} was not asked for")
    messages = parse_messages(item.get("context_messages"), options)
    text = json.dumps(messages, ensure_ascii=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Conversation(_identity(item, place), subset, messages, digest)


def parse_messages(value: Any, options: PrepareOptions) -> list[Message]:
    """Role and content of each message: system first if at all, user and assistant in turn.

    The last message is the user's, since the policy writes the reply. Raises Malformed.
    """
    if not isinstance(value, list) or not value:
        raise Malformed(f"context_messages is {_kind(value)}, not a list of messages")
    if len(value) > options.max_turns:
        raise Malformed(f"{len(value)} messages are over {options.max_turns}")
    messages = [_message(number, message) for number, message in enumerate(value)]
    spoken = messages[1:] if messages[0]["role"] == "system" else messages
    for number, message in enumerate(spoken):
        expected = "user" if number % 2 == 0 else "assistant"
        if message["role"] != expected:
            raise Malformed(
                f"message {number} of the dialogue is by {message['role']!r}, not {expected!r}"
            )
    if len(spoken) % 2 == 0:
        raise Malformed("the last message is not the user's: there is nothing to reply to")
    size = sum(len(message["content"]) for message in messages)
    if size > options.max_conversation_chars:
        raise Malformed(f"{size} characters are over {options.max_conversation_chars}")
    return messages


def hold_out(
    conversations: list[Conversation], validation_rows: int
) -> dict[str, list[Conversation]]:
    """Train and validation in source order; validation are those with the smallest digests."""
    by_digest = sorted(conversations, key=lambda one: one.digest)
    held = {one.digest for one in by_digest[:validation_rows]}
    train = [one for one in conversations if one.digest not in held]
    validation = [one for one in conversations if one.digest in held]
    return dict(zip(SPLITS, (train, validation), strict=True))


def to_row(conversation: Conversation, split: str, index: int) -> dict[str, Any]:
    """The dataset row of one conversation; a reward model scores it, so no output is expected."""
    return {
        "data_source": DATA_SOURCE,
        "prompt": conversation.messages,
        "ability": "dialogue",
        "reward_model": {"style": "model", "ground_truth": ""},
        "extra_info": {
            "index": index,
            "problem_id": conversation.identity,
            "split": split,
            "subset": conversation.subset,
            "turns": len(conversation.messages),
            # Again, as JSON: verl gives reward functions no prompt.
            "conversation": json.dumps(conversation.messages),
        },
    }


def describe(
    splits: Mapping[str, list[Conversation]], quarantined: list[dict[str, str]]
) -> dict[str, Any]:
    """Counts and lengths (characters) of both splits, and what was left out and why."""
    kept = sum(len(conversations) for conversations in splits.values())
    card: dict[str, Any] = {"read": kept + len(quarantined)}
    card |= {split: _describe_split(conversations) for split, conversations in splits.items()}
    reasons = Counter(entry["reason"] for entry in quarantined)
    card["quarantined"] = {"total": len(quarantined), "reasons": dict(sorted(reasons.items()))}
    return card


def _describe_split(conversations: list[Conversation]) -> dict[str, Any]:
    chars = [sum(len(m["content"]) for m in one.messages) for one in conversations] or [0]
    turns = [len(one.messages) for one in conversations] or [0]
    return {
        "rows": len(conversations),
        "subsets": dict(sorted(Counter(one.subset for one in conversations).items())),
        "chars": {"median": statistics.median(chars), "max": max(chars)},
        "turns": {"median": statistics.median(turns), "max": max(turns)},
    }


def _message(number: int, value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise Malformed(f"message {number} is {_kind(value)}, not an object")
    role, content = value.get("role"), value.get("content")
    if role not in ("system", "user", "assistant"):
        raise Malformed(f"message {number} has the role {role!r:.40}")
    if not isinstance(content, str):
        raise Malformed(f"the content of message {number} is {_kind(content)}, not text")
    if not content.strip():
        raise Malformed(f"message {number} is empty")
    if not is_encodable(content):
        raise Malformed(f"message {number} holds half a character (a lone surrogate)")
    return {"role": role, "content": content}


def _identity(item: Item, place: int) -> str:
    """The record's own id, or its place in the source if it has none."""
    if isinstance(item, Unreadable):
        return item.problem_id
    own = item.get("id")
    return readable_name(own if isinstance(own, str | int) and own != "" else place)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"

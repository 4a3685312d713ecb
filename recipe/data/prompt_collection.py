"""Prompt-Collection (OpenRLHF/prompt-collection-v0.1) to verl's parquet.

A record has `context_messages`, a list of {role, content}; `dataset`, which of the collection's six
sources it comes from; and `id`. The `context` column repeats the conversation as one text and is
not used. The collection has one split; validation rows are held out by a hash of the conversation,
so that a conversation stays on its side when other records come or go.

`prepare` writes `train.parquet`, `validation.parquet`, `quarantine.jsonl` (every record left out,
with its reason) and `data_card.json`. Rows and quarantined records add up to what was read; the
same source and options give the same bytes. The source is read twice, record by record, so that
memory does not grow with it: once to find what is held out, once to write.
"""

from __future__ import annotations

import hashlib
import json
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from recipe.data.files import LineFile, RowFile, check_writable, write_json
from recipe.data.progress import counted
from recipe.data.prompt_card import PromptCard
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
    dry_run: bool = False


@dataclass(frozen=True)
class Conversation:
    """One usable record: alternating messages that end with the user's."""

    identity: str
    subset: str
    messages: list[Message]
    digest: bytes

    @property
    def chars(self) -> int:
        """Of all messages."""
        return sum(len(message["content"]) for message in self.messages)


@dataclass(frozen=True)
class Quarantined:
    """A record that is left out, and why."""

    record: str
    reason: str


Found = Conversation | Quarantined


def prepare(source: str, out: Path, options: PrepareOptions | None = None) -> dict[str, Any]:
    """Write the dataset of `source` into `out` and return the data card.

    Raises SourceError if the source is missing, or leaves too few rows for both splits, and
    OutputError, before anything is read, if `out` cannot be written into.
    """
    options = options or PrepareOptions()
    open_source(source, ("train",))  # what is wrong with the source comes before what is with `out`
    if not options.dry_run:
        check_writable(out)
    held = _held_out(source, options)
    card = PromptCard(SPLITS)
    with ExitStack() as files:
        output = None if options.dry_run else _Output(out, files)
        for found in counted(_read(source, options), "writing", "record"):
            if isinstance(found, Quarantined):
                card.add_quarantined(found.reason)
                if output is not None:
                    output.quarantine(found)
                continue
            split = SPLITS[found.digest in held]
            index = card.add_row(split, found.subset, found.chars, len(found.messages))
            if output is not None:
                output.add(found, split, index)
    content = card.content()
    if not options.dry_run:
        write_json(out / "data_card.json", content)
    return content


def _read(source: str, options: PrepareOptions) -> Iterator[Found]:
    return convert(open_source(source, ("train",))["train"], options)


def _held_out(source: str, options: PrepareOptions) -> set[bytes]:
    """The digests of the validation split. Raises SourceError where too few rows would be left."""
    reasons: Counter[str] = Counter()
    smallest = Smallest(options.validation_rows)
    for found in counted(_read(source, options), "reading", "record"):
        if isinstance(found, Quarantined):
            reasons[found.reason] += 1
        else:
            smallest.add(found.digest)
    if smallest.seen <= options.validation_rows:
        raise SourceError(
            f"--source {source}: {smallest.seen} usable conversations, and --validation-rows takes "
            f"{options.validation_rows} of them; most frequent reasons: {reasons.most_common(3)}"
        )
    return set(smallest.values)


class Smallest:
    """The `count` smallest of the values added, and how many were."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.seen = 0
        self.values: list[bytes] = []

    def add(self, value: bytes) -> None:
        """Count the value, and keep it as long as it is among the smallest."""
        self.seen += 1
        if len(self.values) < self._count or (self.values and value < self.values[-1]):
            insort(self.values, value)
            del self.values[self._count :]


def convert(items: Iterable[Item], options: PrepareOptions) -> Iterator[Found]:
    """Items to conversations, in source order. A malformed or repeated one is quarantined."""
    seen: set[bytes] = set()
    for place, item in enumerate(items):
        if options.max_records is not None and place >= options.max_records:
            break
        try:
            conversation = to_conversation(item, place, options)
            if conversation.digest[:16] in seen:
                raise Malformed("the same conversation came before")
        except Malformed as reason:
            yield Quarantined(_identity(item, place), str(reason))
            continue
        seen.add(conversation.digest[:16])
        yield conversation


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
    digest = hashlib.sha256(text.encode()).digest()
    return Conversation(_identity(item, place), subset, messages, digest)


def parse_messages(value: Any, options: PrepareOptions) -> list[Message]:
    """Role and content of each message: system first if at all, user and assistant in turn.

    The last message is the user's, since the policy writes the reply. Raises Malformed.
    """
    if not isinstance(value, list):
        raise Malformed(f"context_messages is {_kind(value)}, not a list of messages")
    if not value:
        raise Malformed("context_messages is empty")
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


class _Output:
    """The files of both splits."""

    def __init__(self, out: Path, files: ExitStack) -> None:
        self._quarantine = files.enter_context(LineFile(out / "quarantine.jsonl"))
        self._rows = {
            split: files.enter_context(RowFile(out / f"{split}.parquet", SCHEMA))
            for split in SPLITS
        }

    def quarantine(self, found: Quarantined) -> None:
        self._quarantine.add({"record": found.record, "reason": found.reason})

    def add(self, found: Conversation, split: str, index: int) -> None:
        self._rows[split].add(to_row(found, split, index), 2 * found.chars)


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

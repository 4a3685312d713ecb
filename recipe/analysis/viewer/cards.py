"""One rollout as a page shows it: its prompt, its texts token by token, and what each token's
numbers are. All of it comes from a model and is made harmless here or escaped by the template.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.analysis.printable import printable
from recipe.analysis.sides import difference
from recipe.analysis.token_layout import readable_tokens
from recipe.analysis.viewer.readings import READINGS, Column, Reading, read_columns

MAX_TOKENS = 4000
MAX_PROMPT_CHARACTERS = 20_000
NO_COLOUR = "none"


@dataclass(frozen=True)
class Token:
    """A token: its text, the class of its colour, its numbers in words. `is_marked` stands for
    dropped in a and new in a'; `is_caret` for a place before it at which a' has more.
    """

    text: str
    style: str
    words: str
    is_marked: bool
    is_caret: bool


@dataclass(frozen=True)
class Text:
    """One of the texts; `omitted` tokens at its end are not shown."""

    title: str
    tag: str
    tokens: tuple[Token, ...]
    omitted: int
    ends_with_caret: bool = False


@dataclass(frozen=True)
class Choice:
    """A reading that can be chosen, or the reason why not."""

    reading: Reading
    absent: str
    is_chosen: bool


@dataclass(frozen=True)
class Card:
    """A rollout and its refinement, if it has one."""

    prompt: str
    texts: tuple[Text, ...]
    choices: tuple[Choice, ...]
    column: Column | None


def make_cards(
    records: Sequence[Mapping[str, Any]], colour: str, most_tokens: int = MAX_TOKENS
) -> list[Card]:
    """The cards of logged lines that are looked at together, all coloured by one reading, the first
    that one of them has if `colour` is empty; each reading has one scale in all.
    """
    found = [read_columns(record) for record in records]
    limits: dict[str, float] = {}
    for columns, _ in found:
        for key, column in columns.items():
            limits[key] = max(limits.get(key, 0.0), column.limit)
    first = next((reading.key for reading in READINGS if reading.key in limits), NO_COLOUR)
    return [
        _make_card(
            record, {key: item.scaled_to(limits[key]) for key, item in columns.items()}, absent,
            colour or first, most_tokens,
        )
        for record, (columns, absent) in zip(records, found, strict=True)
    ]  # fmt: skip


def _make_card(
    record: Mapping[str, Any],
    columns: Mapping[str, Column],
    absent: Mapping[str, str],
    colour: str,
    most_tokens: int,
) -> Card:
    """One card, coloured by a reading if it has that."""
    chosen = colour if colour in columns else ""
    answer = _words(record, "answer")
    has_refinement = bool(record.get("refined_tokens")) or bool(record.get("refined"))
    texts = []
    if not has_refinement:
        texts.append(_text("a, the rollout", "del", answer, "answer", columns, chosen, most_tokens))
    else:
        refined = _words(record, "refined")
        change = difference(answer, refined)
        carets = frozenset(change.insertions)
        texts = [
            _text("a, the rollout", "del", answer, "answer", columns, chosen, most_tokens,
                  change.dropped, carets),
            _text("a′, refined", "ins", refined, "refined", columns, chosen, most_tokens,
                  _new_tokens(record, len(refined))),
        ]  # fmt: skip
    prompt = printable(str(record.get("prompt", "")))
    cut = len(prompt) > MAX_PROMPT_CHARACTERS
    return Card(
        prompt=prompt[:MAX_PROMPT_CHARACTERS] + (" …" if cut else ""),
        texts=tuple(texts),
        choices=tuple(
            Choice(reading, absent.get(reading.key, ""), reading.key == chosen)
            for reading in READINGS
        ),
        column=columns.get(chosen),
    )


def _words(record: Mapping[str, Any], key: str) -> list[str]:
    """The tokens of a text; the whole text as one if its tokens were not logged."""
    text = str(record.get(key) or "")
    tokens = record.get(f"{key}_tokens")
    if not isinstance(tokens, list) or not tokens:
        return [printable(text)] if text else []
    return [printable(token) for token in readable_tokens(list(map(str, tokens)), text)]


def _new_tokens(record: Mapping[str, Any], count: int) -> tuple[bool, ...]:
    copied = record.get("copied")
    if not isinstance(copied, list) or len(copied) != count:
        return (False,) * count
    return tuple(not flag for flag in copied)


def _text(
    title: str,
    tag: str,
    words: Sequence[str],
    side: str,
    columns: Mapping[str, Column],
    chosen: str,
    most_tokens: int,
    marked: Sequence[bool] = (),
    carets: frozenset[int] = frozenset(),
) -> Text:
    own = [column for column in columns.values() if column.reading.side == side]
    colour = next((column for column in own if column.reading.key == chosen), None)
    tokens = tuple(
        Token(
            text=word,
            style=colour.style(index) if colour else "",
            words="; ".join(column.words(index) for column in own),
            is_marked=bool(marked) and marked[index],
            is_caret=index in carets,
        )
        for index, word in enumerate(words[:most_tokens])
    )
    omitted = max(0, len(words) - most_tokens)
    return Text(title, tag, tokens, omitted, len(words) in carets and not omitted)

"""A logged line as the index holds it: the numbers that sort and filter, and the text to search.

`episodes.jsonl` holds rollouts with their refinements, `rollouts.jsonl`, if the run writes it,
those that were not refined. Both are read as they are found; a number that is absent stays absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from operator import attrgetter
from typing import Any

from rapidfuzz.distance import Levenshtein

from recipe.analysis.episodes import is_number, is_step
from recipe.analysis.printable import printable
from recipe.analysis.viewer.readings import mean_cross_entropy
from refiner_worker.diff import MAX_CELLS, token_diff

Record = dict[str, Any]
PROMPT_CHARACTERS = 160
NO_STEP = "without a step; ignored"
REFINED_OUTCOMES = ("improved", "not_improved", "verbatim", "failed")


class Source(IntEnum):
    """The file that a line stands in; the value is the index's."""

    EPISODES = 0
    ROLLOUTS = 1

    @property
    def file(self) -> str:
        """The file's name in a run folder."""
        return f"{self.name.lower()}.jsonl"


@dataclass(frozen=True)
class Row:
    """One rollout, with its refinement if it has one. Lengths and edits are tokens, `ce` is the
    mean over the tokens of a' in nats, `reading` how it was read; None stands for what was not
    logged.
    """

    source: int
    offset: int
    step: int
    uid: str
    problem: str
    prompt: str
    outcome: str
    verdict: str
    refined_verdict: str
    accepted: int | None
    reward: float | None
    refined_reward: float | None
    gain: float | None
    edits: int | None
    length: int | None
    refined_length: int | None
    ce: float | None
    reading: str


COLUMNS = tuple(field.name for field in fields(Row))
values_of = attrgetter(*COLUMNS)
"""The values of a row in the order of `COLUMNS`."""


@dataclass(frozen=True)
class Texts:
    """What full-text search reads of a line."""

    prompt: str
    answer: str
    refined: str


def read_row(record: Record, source: Source, offset: int) -> tuple[Row, Texts] | None:
    """The row of a logged line and its texts; None without a step."""
    step = record.get("step")
    if not is_step(step):
        return None
    reward, refined_reward = _number(record, "reward"), _number(record, "refined_reward")
    answer, refined = _tokens(record, "answer_tokens"), _tokens(record, "refined_tokens")
    is_refined = source is Source.EPISODES
    gain = None if reward is None or refined_reward is None else refined_reward - reward
    ce, reading = mean_cross_entropy(record)
    row = Row(
        source=source,
        offset=offset,
        step=step,
        uid=_name(record, "uid") or f"@{offset}",
        problem=_name(record, "problem_id"),
        prompt=printable(" ".join(_text(record, "prompt")[: 4 * PROMPT_CHARACTERS].split()))[
            :PROMPT_CHARACTERS
        ],
        outcome=_outcome(record, gain) if is_refined else _name(record, "outcome") or "not refined",
        verdict=_name(record, "verdict"),
        refined_verdict=_name(record, "refined_verdict"),
        accepted=_flag(record, "accepted") if is_refined else None,
        reward=reward,
        refined_reward=refined_reward,
        gain=gain,
        edits=_edits(record, answer, refined) if is_refined else None,
        length=None if answer is None else len(answer),
        refined_length=None if refined is None or not is_refined else len(refined),
        ce=ce,
        reading=reading,
    )
    texts = Texts(*(_clean(_text(record, key)) for key in ("prompt", "answer", "refined")))
    return row, texts


def _outcome(record: Record, gain: float | None) -> str:
    """What became of the rollout, as in the report."""
    if record.get("verbatim") is True:
        return "verbatim"
    if gain is None:
        return "failed"
    return "improved" if gain > 0 else "not_improved"


def _edits(
    record: Record, answer: Sequence[str] | None, refined: Sequence[str] | None
) -> int | None:
    """The logged edit distance, or that of the logged tokens."""
    logged = record.get("edit_distance")
    if isinstance(logged, int) and not isinstance(logged, bool):
        return min(max(logged, 0), 2**62)
    if answer is None or refined is None:
        return None
    if len(answer) * len(refined) > MAX_CELLS:
        return token_diff(answer, refined).edit_distance
    return Levenshtein.distance(answer, refined)


def _number(record: Record, key: str) -> float | None:
    value = record.get(key)
    return float(value) if is_number(value) else None  # type: ignore[arg-type]


def _flag(record: Record, key: str) -> int | None:
    value = record.get(key)
    return int(value) if isinstance(value, bool) else None


def _tokens(record: Record, key: str) -> list[str] | None:
    value = record.get(key)
    return list(map(str, value)) if isinstance(value, list) else None


def _name(record: Record, key: str) -> str:
    return printable(_text(record, key))


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    return "" if value is None else str(value)


def _clean(text: str) -> str:
    """What UTF-8 can hold: a half of a surrogate pair becomes "?"."""
    return text.encode("utf-8", "replace").decode()

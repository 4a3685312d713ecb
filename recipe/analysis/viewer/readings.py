"""Numbers per token that a text can be coloured by: which an episode has, and their colours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recipe.analysis.episodes import is_number
from recipe.analysis.marked_text import HEAT_LEVELS
from recipe.analysis.page import SIGNED_LEVELS
from recipe.analysis.reading import SELF_FEEDING, TEACHER_FORCING, asked_tokens, reading_of

MAX_CE_NATS = 10.0


@dataclass(frozen=True)
class Reading:
    """A column of numbers, one per token of a ("answer") or a' ("refined"). `name` is its key in
    the log, without which the column `ce` counts in the reading that it was logged in; `is_signed`
    has colours on both sides of zero.
    """

    key: str
    title: str
    name: str
    side: str
    unit: str = ""
    is_signed: bool = False
    most: float | None = None


READINGS = (
    Reading(
        TEACHER_FORCING, "CE, teacher-forced", "cross_entropy", "refined", " nats",
        most=MAX_CE_NATS,
    ),
    Reading(
        SELF_FEEDING, "CE, self-fed", "cross_entropy_self_fed", "refined", " nats",
        most=MAX_CE_NATS,
    ),
    Reading("advantage", "advantage", "advantage", "answer", is_signed=True),
    Reading("entropy", "entropy", "entropy", "answer", " nats"),
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A reading's numbers in one episode, None for tokens without one; `limit` is the end of the
    scale, `exceeded` whether values lie beyond it.
    """

    reading: Reading
    values: tuple[float | None, ...]
    limit: float
    exceeded: bool

    def scaled_to(self, limit: float) -> "Column":
        """The column on a longer scale."""
        return replace(self, limit=limit, exceeded=largest_of(self.values) > limit)

    def style(self, index: int) -> str:
        """The class of the token's colour."""
        value = self.values[index]
        if value is None:
            return ""
        share = value / self.limit
        if self.reading.is_signed:
            level = round(SIGNED_LEVELS * min(1.0, abs(share)))
            return f"{'n' if share < 0 else 'p'}{level}" if level else ""
        return f"h{round(HEAT_LEVELS * min(1.0, max(0.0, share)))}"

    def words(self, index: int) -> str:
        """The token's value as a reader is told it."""
        value = self.values[index]
        if value is None:
            return f"{self.reading.title}: not asked for"
        return f"{self.reading.title} {f'{value:.3g}'.replace('-', '−')}{self.reading.unit}"


def read_columns(record: Mapping[str, Any]) -> tuple[dict[str, Column], dict[str, str]]:
    """The columns that an episode has, by key, and for each other one why there is none."""
    columns: dict[str, Column] = {}
    absent: dict[str, str] = {}
    for reading in READINGS:
        tokens = record.get(f"{reading.side}_tokens")
        count = len(tokens) if isinstance(tokens, list) else 0
        value = _logged(record, reading)
        if value is None:
            absent[reading.key] = "not logged for this episode"
            continue
        if is_number(value):
            value = [value] * count
        if not isinstance(value, list) or len(value) != count or not all(map(_fits, value)):
            absent[reading.key] = "logged, but not one number per token"
        elif not count:
            absent[reading.key] = "there are no tokens"
        elif all(one is None for one in value):
            absent[reading.key] = "no token was asked for"
        else:
            values = tuple(None if one is None else float(one) for one in value)
            columns[reading.key] = _column(reading, values)
    return columns, absent


def mean_cross_entropy(record: Mapping[str, Any]) -> tuple[float | None, str]:
    """Mean CE of a' in nats over the tokens asked for, and its reading: the constraint's if it was
    logged, else the other; None and "" without one.
    """
    first, second = READINGS[:2] if reading_of(record) == TEACHER_FORCING else READINGS[1::-1]
    for reading in (first, second):
        values = _logged(record, reading)
        if isinstance(values, list) and all(map(_fits, values)):
            known = [float(one) for one in values if one is not None]
            if known:
                return math.fsum(known) / len(known), reading.key
    return None, ""


def _logged(record: Mapping[str, Any], reading: Reading) -> Any:
    """The column as it was logged, None on tokens of `ce` that were not asked for."""
    value = record.get(reading.name)
    if value is not None or reading.key != reading_of(record):
        return value
    value = record.get("ce")
    if not isinstance(value, list):
        return value
    asked = asked_tokens(record, len(value))
    return [one if flag else None for one, flag in zip(value, asked, strict=True)]


def _fits(value: object) -> bool:
    return value is None or is_number(value)


def largest_of(values: Sequence[float | None]) -> float:
    """The largest magnitude of the numbers that there are."""
    return max((abs(value) for value in values if value is not None), default=0.0)


def _column(reading: Reading, values: tuple[float | None, ...]) -> Column:
    largest = largest_of(values)
    limit = max(1.0, largest)
    if reading.most is not None:
        limit = min(limit, reading.most)
    return Column(reading, values, limit, largest > limit)

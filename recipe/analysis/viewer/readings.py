"""Numbers per token that a text can be coloured by: which an episode has, and their colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recipe.analysis.episodes import is_number
from recipe.analysis.marked_text import HEAT_LEVELS
from recipe.analysis.page import SIGNED_LEVELS
from recipe.analysis.viewer.rows import CROSS_ENTROPY

MAX_CE_NATS = 10.0


@dataclass(frozen=True)
class Reading:
    """A column of numbers, one per token of a ("answer") or a' ("refined"). `names` are the keys of
    the log, the first that is there counts; `is_signed` has colours on both sides of zero.
    """

    key: str
    title: str
    names: tuple[str, ...]
    side: str
    unit: str = ""
    is_signed: bool = False
    most: float | None = None


READINGS = (
    Reading(
        "teacher_forcing", "CE, teacher-forced", CROSS_ENTROPY, "refined", " nats", most=MAX_CE_NATS
    ),
    Reading(
        "self_feeding",
        "CE, self-fed",
        ("cross_entropy_self_fed",),
        "refined",
        " nats",
        most=MAX_CE_NATS,
    ),
    Reading("advantage", "advantage", ("advantage",), "answer", is_signed=True),
    Reading("entropy", "entropy", ("entropy",), "answer", " nats"),
)


@dataclass(frozen=True)
class Column:
    """A reading's numbers in one episode; `limit` is the end of the scale, `exceeded` whether
    values lie beyond it.
    """

    reading: Reading
    values: tuple[float, ...]
    limit: float
    exceeded: bool

    def scaled_to(self, limit: float) -> "Column":
        """The column on a longer scale."""
        return replace(self, limit=limit, exceeded=max(map(abs, self.values)) > limit)

    def style(self, index: int) -> str:
        """The class of the token's colour."""
        share = self.values[index] / self.limit
        if self.reading.is_signed:
            level = round(SIGNED_LEVELS * min(1.0, abs(share)))
            return f"{'n' if share < 0 else 'p'}{level}" if level else ""
        return f"h{round(HEAT_LEVELS * min(1.0, max(0.0, share)))}"

    def words(self, index: int) -> str:
        """The token's value as a reader is told it."""
        value = f"{self.values[index]:.3g}".replace("-", "−")
        return f"{self.reading.title} {value}{self.reading.unit}"


def read_columns(record: Mapping[str, Any]) -> tuple[dict[str, Column], dict[str, str]]:
    """The columns that an episode has, by key, and for each other one why there is none."""
    columns: dict[str, Column] = {}
    absent: dict[str, str] = {}
    for reading in READINGS:
        tokens = record.get(f"{reading.side}_tokens")
        count = len(tokens) if isinstance(tokens, list) else 0
        value = next((record[name] for name in reading.names if record.get(name) is not None), None)
        if value is None:
            absent[reading.key] = "not logged for this episode"
            continue
        if is_number(value):
            value = [value] * count
        if not isinstance(value, list) or len(value) != count or not all(map(is_number, value)):
            absent[reading.key] = "logged, but not one number per token"
        elif not count:
            absent[reading.key] = "there are no tokens"
        else:
            columns[reading.key] = _column(reading, tuple(map(float, value)))
    return columns, absent


def _column(reading: Reading, values: Sequence[float]) -> Column:
    largest = max(map(abs, values))
    limit = largest or 1.0
    if not reading.is_signed:
        limit = max(1.0, largest)
    if reading.most is not None:
        limit = min(limit, reading.most)
    return Column(reading, tuple(values), limit, largest > limit)

"""The data card of Prompt-Collection, counted while its records pass: a few bytes for each."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Split:
    subsets: Counter[str] = field(default_factory=Counter)
    chars: array[int] = field(default_factory=lambda: array("q"))
    turns: array[int] = field(default_factory=lambda: array("q"))

    def content(self) -> dict[str, Any]:
        return {
            "rows": len(self.turns),
            "subsets": dict(sorted(self.subsets.items())),
            "chars": _spread(self.chars),
            "turns": _spread(self.turns),
        }


class PromptCard:
    """Counts and lengths (characters) of each split, and what was left out and why."""

    def __init__(self, splits: Iterable[str]) -> None:
        self._splits = {split: _Split() for split in splits}
        self._reasons: Counter[str] = Counter()

    def add_row(self, split: str, subset: str, chars: int, turns: int) -> int:
        """Count a conversation; the place of its row in its split."""
        card = self._splits[split]
        card.subsets[subset] += 1
        card.chars.append(chars)
        card.turns.append(turns)
        return len(card.turns) - 1

    def add_quarantined(self, reason: str) -> None:
        """Count a record that is left out."""
        self._reasons[reason] += 1

    def content(self) -> dict[str, Any]:
        """The card."""
        splits = {split: card.content() for split, card in self._splits.items()}
        quarantined = self._reasons.total()
        return {
            "read": quarantined + sum(card["rows"] for card in splits.values()),
            **splits,
            "quarantined": {"total": quarantined, "reasons": dict(sorted(self._reasons.items()))},
        }


def _spread(values: array[int]) -> dict[str, float]:
    return {"median": statistics.median(values or [0]), "max": max(values, default=0)}

"""The data card of an APPS split, counted while its problems pass: a few bytes for each."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from recipe.data.apps_records import Row
from recipe.data.solution_check import Checked, best_constant
from reward.problem import Problem
from reward.sandbox.wire import Kind


@dataclass
class SplitCard:
    """Counts and lengths (characters) of one split.

    Attributes:
        checked: whether reference solutions are run.
    """

    checked: bool
    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    _counts: Counter[str] = field(default_factory=Counter)
    _difficulty: Counter[str] = field(default_factory=Counter)
    _prompt_chars: array[int] = field(default_factory=lambda: array("q"))
    _tests: array[int] = field(default_factory=lambda: array("q"))
    _constant_shares: array[float] = field(default_factory=lambda: array("d"))
    _solved_by_a_constant: list[str] = field(default_factory=list)
    _several_answers: list[str] = field(default_factory=list)

    def add_row(self, row: Row, problem: Problem) -> None:
        """Count a row that is written."""
        info = row["extra_info"]
        self.rows += 1
        self._counts["call_based"] += problem.kind == Kind.CALL
        self._counts["without_solution"] += not info["reference_solution"]
        self._difficulty[info["difficulty"]] += 1
        self._prompt_chars.append(len(row["prompt"][0]["content"]))
        self._tests.append(len(problem.tests))
        share = best_constant(problem) / len(problem.tests)
        self._constant_shares.append(share)
        if share == 1:
            self._solved_by_a_constant.append(info["problem_id"])

    def add_quarantined(self, reason: str) -> None:
        """Count a record that is left out."""
        self.reasons[reason] += 1

    def add_checked(self, found: Checked) -> None:
        """Count what running a problem's solutions has found, whatever becomes of it."""
        self._counts["checked"] += 1
        self._counts["compared"] += len(found.verdicts) > 1
        if found.several_answers:
            self._several_answers.append(found.problem_id)
        if not found.verdicts:
            return
        self._counts["tried"] += 1
        self._counts["accepted"] += found.accepted is not None
        self._counts["accepted_not_the_first"] += (found.accepted or 0) > 0
        self._counts["judge_failed"] += found.judge_failed

    def content(self) -> dict[str, Any]:
        """The card; there must be a row."""
        quarantined = self.reasons.total()
        card = {
            "read": self.rows + quarantined,
            "rows": self.rows,
            "quarantined": quarantined,
            "reasons": dict(sorted(self.reasons.items())),
            "call_based": self._counts["call_based"],
            "without_reference_solution": self._counts["without_solution"],
            "difficulty": dict(sorted(self._difficulty.items())),
            "prompt_chars": _spread(self._prompt_chars),
            "tests": _spread(self._tests),
            "constant_answers": self._constants(),
        }
        if self.checked:
            card["solution_check"] = self._check()
            card["several_answers"] = {
                "compared": self._counts["compared"],
                "flagged": len(self._several_answers),
                "problems": self._several_answers,
            }
        return card

    def _constants(self) -> dict[str, Any]:
        """What a policy could earn without solving anything: by printing the best constant."""
        shares = self._constant_shares
        return {
            "mean_share_of_tests_passed": round(statistics.fmean(shares), 4),
            "problems_with_half_passed": sum(share >= 0.5 for share in shares),
            "problems_solved": self._solved_by_a_constant,
        }

    def _check(self) -> dict[str, int]:
        """How many problems of each kind; the kinds add up to the problems checked."""
        tried, accepted = self._counts["tried"], self._counts["accepted"]
        failed = self._counts["judge_failed"]
        return {
            "accepted": accepted,
            "accepted_not_the_first": self._counts["accepted_not_the_first"],
            "none_accepted": tried - accepted - failed,
            "judge_failed": failed,
            "without_solution": self._counts["checked"] - tried,
        }


def _spread(values: array[int]) -> dict[str, float]:
    return {"median": statistics.median(values), "max": max(values)}

"""Refinements counted where they are made: sums over rollouts, whatever becomes of these.

Rollouts that never reach the update, since dynamic sampling drops their group, were refined all the
same. They are counted when they are dropped, those of the batch when it is read, each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from recipe.online_refiner.records import Prompt, Rollout

COMPILE_ERROR = "compile_error"
"""The verdict on a response without a readable program; repairing one is a format fix."""


@dataclass(frozen=True)
class RefinementCounts:
    """Sums over rollouts that were up for refinement; two of them add up.

    Attributes:
        rollouts: all of them. improved: those with R(a') > R(a), whatever the filter accepts.
        outcomes: how many met each outcome.
        generated_tokens, engine_calls, scored_tokens: see `Refinement`.
        written: those with an a', verbatim or not. written_tokens: theirs in all, of which
            `copied_tokens` were copied. edits: token edits from a to a' in all.
        judged: those with R(a'). gain: Σ R(a') - R(a) over them.
        fixes: accepted and improved. format_fixes: those of a rollout without a readable program.
        last_judged_s, last_finished_s: when the last a was judged and the last refinement settled.
    """

    rollouts: int = 0
    improved: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    generated_tokens: int = 0
    engine_calls: int = 0
    scored_tokens: int = 0
    written: int = 0
    written_tokens: int = 0
    copied_tokens: int = 0
    edits: int = 0
    judged: int = 0
    gain: float = 0.0
    fixes: int = 0
    format_fixes: int = 0
    last_judged_s: float = 0.0
    last_finished_s: float = 0.0

    def __add__(self, other: RefinementCounts) -> RefinementCounts:
        sums = {
            one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)
        }
        return replace(
            RefinementCounts(**sums),
            last_judged_s=max(self.last_judged_s, other.last_judged_s),
            last_finished_s=max(self.last_finished_s, other.last_finished_s),
        )

    @property
    def improvement_ratio(self) -> float | None:
        """The paper's: the share of all rollouts with R(a') > R(a); None without rollouts."""
        return self.improved / self.rollouts if self.rollouts else None

    @property
    def wait_s(self) -> float:
        """Seconds from the last rollout's verdict to the last refinement's: what overlap left."""
        return max(0.0, self.last_finished_s - self.last_judged_s)

    def of(self, outcomes: set[str]) -> int:
        """How many met one of these outcomes."""
        return sum(self.outcomes[outcome] for outcome in outcomes)


def counted(rollouts: Sequence[Rollout]) -> RefinementCounts:
    """The counts of those that were up for refinement."""
    found = [one.refinement for one in rollouts if one.refinement is not None]
    written = [one for one in found if one.token_ids]
    gains = [one.refined_reward - one.reward for one in found if one.refined_reward is not None]
    fixes = [one for one in found if one.accepted and one.improved]
    return RefinementCounts(
        rollouts=len(found),
        improved=sum(one.improved for one in found),
        outcomes=Counter(one.outcome for one in found),
        generated_tokens=sum(one.generated_tokens for one in found),
        engine_calls=sum(one.engine_calls for one in found),
        scored_tokens=sum(one.scored_tokens for one in found),
        written=len(written),
        written_tokens=sum(len(one.copied) for one in written),
        copied_tokens=sum(sum(one.copied) for one in written),
        edits=sum(one.edit_distance for one in written),
        judged=len(gains),
        gain=sum(gains),
        fixes=len(fixes),
        format_fixes=sum(one.verdict == COMPILE_ERROR for one in fixes),
        last_judged_s=max((one.judged_at_s for one in found), default=0.0),
        last_finished_s=max((one.finished_at_s for one in found), default=0.0),
    )


class Dropped:
    """What is remembered of rollouts that are thrown away: their counts and prompts, no tokens."""

    def __init__(self) -> None:
        self._counts = RefinementCounts()
        self._prompts: dict[str, Prompt] = {}

    def add(self, rollouts: Sequence[Rollout]) -> None:
        """Called before they are gone."""
        self._counts += counted(rollouts)
        for one in rollouts:
            self._prompts[one.uid] = Prompt(one.uid, one.prompt_ids, one.reference)

    def take(self) -> tuple[RefinementCounts, list[Prompt]]:
        """What was dropped since the last call."""
        taken = self._counts, list(self._prompts.values())
        self._counts, self._prompts = RefinementCounts(), {}
        return taken

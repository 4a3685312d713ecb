"""When the phases of a training step were, and how much memory was in use in each of them.

A step makes rollouts (servers awake), puts the servers to sleep, computes log-probs, updates the
actor, sends the weights and wakes the servers. Known are the times at which each rollout was judged
and settled, and verl's durations of the parts of a step. What sleeping and waking took together is
left over; how it is shared is not known, nor how long the trainer took to notice the last rollout,
so a phase counts only while it is certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROLLOUT_TIMES_FILE = "rollout_times.jsonl"
BEFORE_UPDATE = ("old_log_prob", "ref", "adv")
AFTERWARDS = ("save_checkpoint", "update_weights")


def refines(step: int) -> bool:
    """Whether a step of the trial refines: all but 3, 5, 7 …, to compare neighbours."""
    return step < 3 or step % 2 == 0


@dataclass(frozen=True)
class Rollout:
    """When one rollout of a step was judged, and when its refinement was settled (Unix seconds)."""

    step: int
    judged_at_s: float
    settled_at_s: float


@dataclass(frozen=True)
class Sample:
    """The memory in use at a time (Unix seconds)."""

    at_s: float
    used_bytes: int


@dataclass(frozen=True)
class Span:
    """A stretch of time; empty if it ends before it starts."""

    start_s: float
    end_s: float

    def within(self, samples: Sequence[Sample]) -> list[int]:
        """The memory of the samples in it."""
        return [one.used_bytes for one in samples if self.start_s <= one.at_s <= self.end_s]


@dataclass(frozen=True)
class Phases:
    """Of one step: rollouts are made; the servers sleep; the actor is updated."""

    rollouts: Span
    asleep: Span
    update: Span


def phases(
    step: int, rollouts: Sequence[Rollout], timing_s: Mapping[str, float], notice_s: float
) -> Phases | None:
    """The phases of a step; None if no rollout of it was recorded.

    Args:
        timing_s: verl's durations by the names after `timing_s/`.
        notice_s: in which the trainer notices at the latest that all rollouts are settled.
    """
    own = [one for one in rollouts if one.step == step]
    if not own:
        return None
    settled_s = max(one.settled_at_s for one in own)
    before = sum(timing_s.get(name, 0.0) for name in BEFORE_UPDATE)
    update = timing_s.get("update_actor", 0.0)
    named = timing_s["gen"] + before + update + sum(timing_s.get(name, 0.0) for name in AFTERWARDS)
    # Sleeping before and waking after: what follows begins between 0 and so many seconds later.
    unknown = notice_s + max(0.0, timing_s["step"] - named)
    ends_s = settled_s + before + update
    return Phases(
        rollouts=Span(min(one.judged_at_s for one in own), settled_s),
        asleep=Span(settled_s + unknown, ends_s),
        update=Span(settled_s + unknown + before, ends_s),
    )


@dataclass(frozen=True)
class MemorySeen:
    """Bytes in use: most while rollouts were made, least asleep, most in an update.

    None if no sample fell into the phase.
    """

    rollouts: int | None
    asleep: int | None
    update: int | None


def memory_seen(found: Sequence[Phases], samples: Sequence[Sample]) -> MemorySeen:
    """Over all steps."""
    awake = [used for one in found for used in one.rollouts.within(samples)]
    asleep = [used for one in found for used in one.asleep.within(samples)]
    update = [used for one in found for used in one.update.within(samples)]
    return MemorySeen(
        max(awake, default=None), min(asleep, default=None), max(update, default=None)
    )

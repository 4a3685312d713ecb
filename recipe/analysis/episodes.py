"""Refined episodes of a run: digests of all of them in memory, the full text of one on demand.

A run of 150 steps and 512 rollouts leaves tens of thousands of episodes, each with two token lists.
Tables and the choice of an episode need a few numbers of each, so the file is parsed once and only
those numbers are kept.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from pathlib import Path
from sys import intern
from typing import Any, TypeGuard

from recipe.analysis.printable import printable
from recipe.analysis.reading import asked_tokens, reading_of
from recipe.analysis.records import read_record_at


@dataclass(frozen=True)
class Episode:
    """A rollout a and its refinement a', as logged.

    `copied` and `ce` have one entry per refined token; `ce` is in nats and is None if the episode
    has no constraint (a' was not accepted), an entry of it if the policy was not asked for the
    token. `reading` is what the policy had read (`reading.WORDS`).
    """

    step: int
    problem_id: str
    prompt: str
    answer: str
    refined: str
    reward: float
    refined_reward: float
    verdict: str
    refined_verdict: str
    accepted: bool
    verbatim: bool
    answer_tokens: tuple[str, ...]
    refined_tokens: tuple[str, ...]
    copied: tuple[bool, ...]
    ce: tuple[float | None, ...] | None
    reading: str


MAX_MAGNITUDE = 1e100
"""Beyond it a number is taken for garbage: sums and squares of such numbers would overflow."""
MAX_STEP = 10**9
Record = dict[str, Any]
NO_EPISODE = "episode without step, accepted and verbatim; ignored"
OUTCOMES = {
    "skipped_perfect": "perfect, not refined",
    "verbatim": "verbatim",
    "improved": "edited, better",
    "not_improved": "edited, not better",
    "failed": "failed or not judged",
}
"""What can become of a rollout, and how a reader is told. Skipped rollouts leave no episode."""


@dataclass(frozen=True, slots=True)
class EpisodeDigest:
    """What tables need of an episode. Sums of token cross entropy are in nats, over the counted
    tokens, which are those that the policy was asked for.
    """

    step: int
    offset: int
    accepted: bool
    verbatim: bool
    refined_verdict: str
    refined_length: int
    edited_length: int
    ce_copied_sum: float = 0.0
    ce_copied_count: int = 0
    ce_edited_sum: float = 0.0
    ce_edited_count: int = 0
    problem_id: str = ""
    verdict: str = ""
    reward: float = math.nan
    refined_reward: float = math.nan
    reading: str = ""

    @property
    def outcome(self) -> str:
        """What became of the rollout: one of `OUTCOMES` that leave an episode."""
        if self.verbatim:
            return "verbatim"
        if math.isnan(self.refined_reward):
            return "failed"
        return "improved" if self.refined_reward > self.reward else "not_improved"


def read_episode(path: Path, item: EpisodeDigest) -> Episode:
    """Read the full episode of a digest again; `ValueError` where the file changed in between."""
    episode, problem = parse_episode(read_record_at(path, item.offset))
    if episode is None:
        raise ValueError(f"{path}: {problem}")
    return episode


def digest(record: Record, offset: int) -> tuple[EpisodeDigest | None, str | None]:
    """Reduce a logged record to the numbers that tables and choices need and, if something is
    amiss, name it: the same judgement as that of `parse_episode`, without building the episode.
    """
    flags = _flags(record)
    if flags is None:
        return None, NO_EPISODE
    step, accepted, verbatim = flags
    copied, ce, problem = _token_values(record)
    copied_count = sum(map(bool, copied))
    asked = asked_tokens(record, len(copied)) if ce else []
    asked_copies = list(compress(copied, asked))
    asked_ce = list(compress(ce, asked))
    ce_copied_count = sum(map(bool, asked_copies))
    return (
        EpisodeDigest(
            step=step,
            offset=offset,
            accepted=accepted,
            verbatim=verbatim,
            refined_verdict=intern(printable(_text(record, "refined_verdict"))),
            refined_length=len(copied),
            edited_length=len(copied) - copied_count,
            ce_copied_sum=sum(compress(asked_ce, asked_copies)),
            ce_copied_count=ce_copied_count,
            ce_edited_sum=sum(compress(asked_ce, map(not_, asked_copies))),
            ce_edited_count=len(asked_copies) - ce_copied_count,
            problem_id=intern(printable(_text(record, "problem_id"))),
            verdict=intern(printable(_text(record, "verdict"))),
            reward=_number(record.get("reward")),
            refined_reward=_number(record.get("refined_reward")),
            reading=reading_of(record) if ce else "",
        ),
        problem,
    )


def mean_ce(digests: Iterable[EpisodeDigest]) -> tuple[float, float]:
    """Mean CE in nats on copied and on edited tokens, every token counting once; NaN if there is
    none.
    """
    items = list(digests)
    copied = sum(item.ce_copied_count for item in items)
    edited = sum(item.ce_edited_count for item in items)
    return (
        math.fsum(item.ce_copied_sum for item in items) / copied if copied else math.nan,
        math.fsum(item.ce_edited_sum for item in items) / edited if edited else math.nan,
    )


def parse_episode(record: Record) -> tuple[Episode | None, str | None]:
    """Turn a logged record into an `Episode` and, if something is amiss, name it.

    Without a step or flags there is no episode; a CE list that does not fit its tokens costs the
    episode only its CE.
    """
    flags = _flags(record)
    if flags is None:
        return None, NO_EPISODE
    step, accepted, verbatim = flags
    copied, ce, problem = _token_values(record)
    return (
        Episode(
            step=step,
            problem_id=printable(_text(record, "problem_id")),
            prompt=_text(record, "prompt"),
            answer=_text(record, "answer"),
            refined=_text(record, "refined"),
            reward=_number(record.get("reward")),
            refined_reward=_number(record.get("refined_reward")),
            verdict=printable(_text(record, "verdict")),
            refined_verdict=printable(_text(record, "refined_verdict")),
            accepted=accepted,
            verbatim=verbatim,
            answer_tokens=_strings(record.get("answer_tokens")),
            refined_tokens=_strings(record.get("refined_tokens")),
            copied=tuple(map(bool, copied)),
            ce=_asked_values(record, ce) if ce else None,
            reading=reading_of(record),
        ),
        problem,
    )


def _asked_values(record: Record, ce: Sequence[float]) -> tuple[float | None, ...]:
    asked = asked_tokens(record, len(ce))
    return tuple(float(value) if flag else None for value, flag in zip(ce, asked, strict=True))


def _flags(record: Record) -> tuple[int, bool, bool] | None:
    """Step, accepted and verbatim; None if one is missing or of another type."""
    step, accepted, verbatim = record.get("step"), record.get("accepted"), record.get("verbatim")
    if is_step(step) and isinstance(accepted, bool) and isinstance(verbatim, bool):
        return step, accepted, verbatim
    return None


def is_step(value: object) -> TypeGuard[int]:
    """True for an int that can count training steps."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_STEP


def _token_values(record: Record) -> tuple[Sequence[Any], Sequence[float], str | None]:
    """What is logged per refined token: whether it is copied, by truth value, and its CE in nats,
    empty if there is none; and what is amiss.
    """
    tokens, copied = _list(record.get("refined_tokens")), _list(record.get("copied"))
    if len(copied) != len(tokens):
        return [True] * len(tokens), (), "copied does not fit the refined tokens; CE not used"
    if record.get("ce") is None:
        return copied, (), None
    ce = _list(record.get("ce"))
    numbers = set(map(type, ce)) <= {int, float}
    if len(ce) != len(tokens) or not ce or not numbers or not _all_finite(ce):
        return copied, (), "ce is not one finite number per refined token; CE not used"
    return copied, ce, None


def _all_finite(ce: Sequence[float]) -> bool:
    """Min and max are taken since they are fast; a NaN makes the sum one."""
    return min(ce) >= -MAX_MAGNITUDE and max(ce) <= MAX_MAGNITUDE and not math.isnan(sum(ce))


def _text(record: Record, key: str) -> str:
    return str(record.get(key, ""))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: object) -> tuple[str, ...]:
    return tuple(map(str, _list(value)))


def is_number(value: object) -> bool:
    """True for an int or float that is not a bool and no further from zero than `MAX_MAGNITUDE`."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE
    )


def _number(value: Any) -> float:
    return float(value) if is_number(value) else math.nan

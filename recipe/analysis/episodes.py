"""Refined episodes of a run: digests of all of them in memory, the full text of one on demand.

A run of 150 steps and 512 rollouts leaves tens of thousands of episodes, each with two token lists.
Tables and the choice of an episode need a few numbers of each, so the file is parsed once and only
those numbers are kept.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from sys import intern
from typing import Any

from recipe.analysis.records import Finding, condense, read_jsonl, read_record_at


@dataclass(frozen=True)
class Episode:
    """A rollout a and its refinement a', as logged.

    `copied` and `ce` have one entry per refined token; `ce` is in nats and is None where the
    episode carries no constraint (a' was not accepted).
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
    ce: tuple[float, ...] | None


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
    tokens.
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

    @property
    def outcome(self) -> str:
        """What became of the rollout: one of `OUTCOMES` that leave an episode."""
        if self.verbatim:
            return "verbatim"
        if math.isnan(self.refined_reward):
            return "failed"
        return "improved" if self.refined_reward > self.reward else "not_improved"


def read_digests(path: Path) -> tuple[tuple[EpisodeDigest, ...], tuple[Finding, ...]]:
    """Parse `episodes.jsonl` once; a missing file, bad lines and void steps become findings."""
    digests: list[EpisodeDigest] = []
    problems: list[tuple[int, str]] = []
    try:
        for line in read_jsonl(path):
            if line.problem is not None:
                problems.append((line.number, line.problem))
            if line.record is None:
                continue
            episode, problem = parse_episode(line.record)
            if problem is not None:
                problems.append((line.number, problem))
            if episode is not None:
                digests.append(digest(episode, line.offset))
    except FileNotFoundError:
        return (), (Finding(path, "missing: no counts of refinements, no heat map from this run"),)
    except OSError as error:
        return (), (Finding(path, f"cannot be read ({error.strerror})"),)
    kept, superseded = drop_superseded(digests)
    findings = condense(path, problems)
    if superseded:
        message = f"{superseded} episodes of steps that a resume repeated; the later ones are used"
        findings += (Finding(path, message),)
    return kept, findings


def drop_superseded(digests: Sequence[EpisodeDigest]) -> tuple[tuple[EpisodeDigest, ...], int]:
    """Keep the last writing of each step, and count what is dropped.

    Episodes are written in the order of their steps, so a step lower than the one before it means
    that the run was resumed there, and that earlier lines at or beyond that step are void.
    """
    kept: list[EpisodeDigest] = []
    for item in digests:
        if kept and item.step < kept[-1].step:
            while kept and kept[-1].step >= item.step:
                kept.pop()
        kept.append(item)
    return tuple(kept), len(digests) - len(kept)


def read_episode(path: Path, item: EpisodeDigest) -> Episode:
    """Read the full episode of a digest again; `ValueError` where the file changed in between."""
    episode, problem = parse_episode(read_record_at(path, item.offset))
    if episode is None:
        raise ValueError(f"{path}: {problem}")
    return episode


def digest(episode: Episode, offset: int) -> EpisodeDigest:
    """Reduce an episode to the numbers that tables and choices need."""
    ce = episode.ce or ()
    edited = tuple(not flag for flag in episode.copied)
    copied_count = len(edited) - sum(edited)
    copied_sum, edited_sum = sum(compress(ce, episode.copied)), sum(compress(ce, edited))
    return EpisodeDigest(
        step=episode.step,
        offset=offset,
        accepted=episode.accepted,
        verbatim=episode.verbatim,
        refined_verdict=intern(episode.refined_verdict),
        refined_length=len(episode.refined_tokens),
        edited_length=len(edited) - copied_count,
        ce_copied_sum=copied_sum,
        ce_copied_count=copied_count if ce else 0,
        ce_edited_sum=edited_sum,
        ce_edited_count=len(edited) - copied_count if ce else 0,
        problem_id=episode.problem_id,
        verdict=intern(episode.verdict),
        reward=episode.reward,
        refined_reward=episode.refined_reward,
    )


def mean_ce(digests: Iterable[EpisodeDigest]) -> tuple[float, float]:
    """Mean CE in nats on copied and on edited tokens, every token counting once; NaN where there is
    none.
    """
    items = list(digests)
    copied = sum(item.ce_copied_count for item in items)
    edited = sum(item.ce_edited_count for item in items)
    return (
        math.fsum(item.ce_copied_sum for item in items) / copied if copied else math.nan,
        math.fsum(item.ce_edited_sum for item in items) / edited if edited else math.nan,
    )


def parse_episode(record: dict[str, Any]) -> tuple[Episode | None, str | None]:
    """Turn a logged record into an `Episode` and, where something is amiss, name it.

    Without a step or flags there is no episode; a CE list that does not fit its tokens costs the
    episode only its CE.
    """
    step, accepted, verbatim = record.get("step"), record.get("accepted"), record.get("verbatim")
    if (
        not isinstance(step, int)
        or not isinstance(accepted, bool)
        or not isinstance(verbatim, bool)
    ):
        return None, "episode without step, accepted and verbatim; ignored"
    refined_tokens = _strings(record.get("refined_tokens"))
    copied = tuple(map(bool, _list(record.get("copied"))))
    problem = None
    if len(copied) != len(refined_tokens):
        copied, problem = (
            (True,) * len(refined_tokens),
            "copied does not fit the refined tokens; CE not used",
        )
    ce = None if problem else _finite(record.get("ce"))
    if (
        record.get("ce") is not None
        and problem is None
        and (ce is None or len(ce) != len(refined_tokens))
    ):
        ce, problem = None, "ce is not one finite number per refined token; CE not used"
    return (
        Episode(
            step=step,
            problem_id=str(record.get("problem_id", "")),
            prompt=str(record.get("prompt", "")),
            answer=str(record.get("answer", "")),
            refined=str(record.get("refined", "")),
            reward=_number(record.get("reward")),
            refined_reward=_number(record.get("refined_reward")),
            verdict=str(record.get("verdict", "")),
            refined_verdict=str(record.get("refined_verdict", "")),
            accepted=accepted,
            verbatim=verbatim,
            answer_tokens=_strings(record.get("answer_tokens")),
            refined_tokens=refined_tokens,
            copied=copied,
            ce=ce,
        ),
        problem,
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: object) -> tuple[str, ...]:
    return tuple(map(str, _list(value)))


def is_number(value: object) -> bool:
    """True for a finite int or float that is not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> float:
    return float(value) if is_number(value) else math.nan


def _finite(value: object) -> tuple[float, ...] | None:
    items = _list(value)
    numbers = bool(items) and set(map(type, items)) <= {int, float}
    return tuple(map(float, items)) if numbers and all(map(math.isfinite, items)) else None

"""The reward of one response before any shaping: the one place that reads it.

verl keeps beside the reward that is trained on, from which a length penalty may already be taken
(`reward.reward_manager.name=dapo`), what the reward function returned: a dict as it is, which has a
`score`, and a plain number as `acc`. The filter, the group filter, the queue and the refiner's
feedback all read it here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recipe.online_refiner.choices import JUDGE_FAILED_KEY
from recipe.online_refiner.records import Score

SCORE_KEY = "score"
"""The reward before any shaping, in what a reward function returns as a dict."""
PLAIN_SCORE_KEY = "acc"
"""verl's name of a plain number that a reward function returned."""
GAVE_UP_KEYS = ("timeout", "error")
"""Set by verl's reward manager `rate_limited` where it put 0.0 in the place of a result."""


class ScoreError(ValueError):
    """No reward before shaping can be told of a response."""


def score_of(extras: Mapping[str, Any]) -> Score:
    """The verdict on one response, by what verl stored of its reward function's result.

    Without a finite score, or if the judge failed, there is no verdict. Raises ScoreError if the
    result holds no number at all.
    """
    verdict = str(extras.get("verdict", ""))
    if SCORE_KEY not in extras and any(extras.get(key) for key in GAVE_UP_KEYS):
        return Score(0.0, verdict, judged=False)
    reward = _number(extras)
    if not math.isfinite(reward):
        return Score(0.0, verdict, judged=False)
    return Score(reward, verdict, judged=not extras.get(JUDGE_FAILED_KEY, 0))


def settle_score(extras: dict[str, Any]) -> Score:
    """`score_of`, written into the extras, so that verl's group filter finds it by name too."""
    score = score_of(extras)
    extras[SCORE_KEY] = score.reward
    if not score.judged:
        extras[JUDGE_FAILED_KEY] = 1.0
    return score


def group_value(extras: Mapping[str, Any], metric: str, shaped: float | None) -> float:
    """What dynamic sampling compares of one response (`algorithm.filter_groups.metric`).

    Args:
        metric: `reward` for verl's reward with its shaping; otherwise a key of the extras.
        shaped: that reward.
    """
    if metric == SCORE_KEY:
        return score_of(extras).reward
    if metric != "reward" and metric not in extras:
        raise ScoreError(
            f"algorithm.filter_groups.metric={metric}: the reward function returned "
            f"{_keys(extras)}. Fix: one of these, or {SCORE_KEY}"
        )
    return float(shaped if metric == "reward" and shaped is not None else extras[metric])


def _number(extras: Mapping[str, Any]) -> float:
    value = extras.get(SCORE_KEY, extras.get(PLAIN_SCORE_KEY))
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ScoreError(
            "reward.custom_reward_function or reward.reward_manager: the reward before any shaping "
            f"cannot be told from {SCORE_KEY}={value!r} in what they returned, {_keys(extras)}. "
            f"Fix: return a number, or a dict with the number as {SCORE_KEY!r}"
        ) from error


def _keys(extras: Mapping[str, Any]) -> str:
    return ", ".join(sorted(extras)) or "nothing"

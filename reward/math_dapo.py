"""verl's scorer for DAPO-Math and AIME (`math_dapo`) as a reward function of this project.

reward.custom_reward_function.path=pkg://reward.math_dapo
reward.custom_reward_function.name=compute_score
+reward.custom_reward_function.reward_kwargs.strict_box_verify=true      # only \\boxed{…} counts

The scorer reads the last 300 characters of a response: what follows the last `Answer:`, or else the
last \\boxed{…}, is compared with the expected answer as text, after units and blanks are taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reward.traits import RewardExtras, RewardTraits

RIGHT, WRONG, MISSING = "accepted", "wrong_answer", "no_answer"
_NOTHING_FOUND = ("", "[INVALID]")
"""What the scorer says it has read if it found nothing, as text."""


class MathExtras(RewardExtras):
    """What the scorer tells, which verl's metrics of validation are made of.

    `acc` is 1.0 or 0.0, `pred` what was read as the response's answer.
    """

    acc: float
    pred: str


def row_fault(row: Mapping[str, Any]) -> str:
    """Why a row's responses cannot be scored; empty if they can."""
    truth = (row.get("reward_model") or {}).get("ground_truth")
    if not isinstance(truth, str) or not truth.strip():
        return "reward_model.ground_truth is no text"
    if truth.lstrip().startswith(("{", "[")):
        return "reward_model.ground_truth is JSON, no answer to a problem"
    return ""


TRAITS = RewardTraits(
    tells_verdict=True,
    asks_reward_model=False,
    task="mathematics",
    numbers=("acc",),
    best_score=lambda settings: 1.0,
    row_fault=row_fault,
)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    strict_box_verify: bool = False,
) -> MathExtras:
    """1.0 for the expected answer, else -1.0, before any length penalty."""
    # Imported late: the preflight reads TRAITS, and needs no verl for that.
    from verl.utils.reward_score import math_dapo

    found = math_dapo.compute_score(solution_str, ground_truth, strict_box_verify)
    read = str(found["pred"] or "")
    right = bool(found["acc"])
    return {
        "score": float(found["score"]),
        "acc": float(right),
        "pred": "" if read in _NOTHING_FOUND else read,
        "verdict": RIGHT if right else MISSING if read in _NOTHING_FOUND else WRONG,
    }

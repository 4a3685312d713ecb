"""A reward of one's own: how many of the words that the row asks for the response has.

Use it by two keys: reward.custom_reward_function.path=docs/examples/keyword_reward.py
refiner.perfect_reward=1.0
"""

from collections.abc import Mapping
from typing import Any

from reward.traits import RewardExtras, RewardTraits

TRAITS = RewardTraits(tells_verdict=True, failing_test_setting="show_missing")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    show_missing: bool = False,
) -> RewardExtras:
    """The share of the words of `ground_truth`, between 0 and 1."""
    words = ground_truth.split()
    missing = [word for word in words if word not in solution_str]
    passed, total = len(words) - len(missing), max(len(words), 1)
    result: RewardExtras = {
        "score": passed / total if words else 1.0,
        "verdict": "missing_words" if missing else "accepted",
        "passed": passed,
        "total": total,
    }
    if show_missing:
        result["failing_test"] = f"the word {missing[0]!r} is missing" if missing else ""
    return result

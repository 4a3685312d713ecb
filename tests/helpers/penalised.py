"""What a training's advantages were before a penalty was taken from them, by its logged c_t."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest

Record = dict[str, Any]


def check_return_to_go(records: Sequence[Record], lambda_: float) -> None:
    """Advantage + λ·Σ_{u≥t} c_u is one number a rollout, and those of a group add up to nothing.

    Self-fed, with γ = 1: c_u is on step u. All rollouts of a step that were trained on.
    """
    groups = defaultdict(list)
    lowered = 0
    for one in records:
        before = before_the_penalty(one, lambda_)
        assert before == pytest.approx([before[0]] * len(before), abs=1e-5)
        groups[one["step"], one["uid"]].append(before[0])
        lowered += one.get("accepted", False) and lambda_ * sum(one["ce"]) > 0.01
    assert lowered, "no refinement costs enough to tell the forms of the penalty apart"
    for values in groups.values():
        assert len(values) > 1 and sum(values) == pytest.approx(0, abs=1e-4)


def before_the_penalty(one: Record, lambda_: float) -> list[float]:
    """The advantages of a rollout's T tokens with what was taken from them put back."""
    steps, advantage = len(one["answer_tokens"]), one["advantage"]
    values = advantage if isinstance(advantage, list) else [advantage] * steps
    if not one.get("accepted"):
        return values
    costs = [*one["ce"], *[0.0] * steps][:steps]
    to_go = list(accumulate(reversed(costs)))[::-1]
    return [value + lambda_ * rest for value, rest in zip(values, to_go, strict=True)]

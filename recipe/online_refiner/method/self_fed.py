"""The self-fed cross entropy on accepted refinements, for a run that only watches it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from recipe.online_refiner.choices import Conditioning, Tokens
from recipe.online_refiner.method.accepted import accepted_rollouts
from recipe.online_refiner.method.labels import RowLabels, labels_of, on_tokens
from recipe.online_refiner.records import Rollout

COLUMN = "cross_entropy_self_fed"


class SelfFed:
    """Token t of a' in the state of step t of a, whatever tokens the constraint is on.

    Attributes:
        labels: what the policy is asked for.
        columns: c_t in nats by the rollout's key and the column's name, one for each token of a',
            None on tokens that no state is asked for or that it is not finite on; empty until it is
            measured.
    """

    def __init__(self, rollouts: Sequence[Rollout]) -> None:
        self._watched = accepted_rollouts(rollouts, Tokens.ALL, Conditioning.SELF_FEEDING)
        self.labels: list[RowLabels] = labels_of(self._watched)
        self.columns: dict[str, dict[str, list[float | None]]] = {}

    def measured(self, cross_entropy: Sequence[torch.Tensor]) -> None:
        """Take c_t of the labels, in their order."""
        for one, values in zip(self._watched, cross_entropy, strict=True):
            placed = on_tokens(one, values).double().round(decimals=6).tolist()
            flags = one.asked.tolist()
            self.columns[one.key] = {
                COLUMN: [
                    value if flag and math.isfinite(value) else None
                    for value, flag in zip(placed, flags, strict=True)
                ]
            }

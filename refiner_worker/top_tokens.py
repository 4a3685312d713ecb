"""The refiner's distribution over each token of a refinement, as its likeliest k tokens.

They are scored in one prefill of the refinement after what the refiner had read when it wrote it:
verl's servers return the likeliest tokens for a prompt, and for generated tokens the drawn one's
log-probability alone. So the tokens are those that are trained on, whatever decoding drafted or
reading changed, and only refinements that are wanted are scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refiner_worker.acceptance import TokenScore


@dataclass(frozen=True, eq=False)
class TopTokens:
    """The refiner's likeliest k tokens in the state before each of the U tokens of a refinement.

    A token that the refiner did not choose is certain: its state lists it alone, with 0 nats.

    Attributes:
        token_ids: [U, k] int32. log_probs: [U, k] float32, in nats at temperature 1, the refiner's
            own; -inf for no token.
        start, end: the states from `start` to before `end` are the refiner's.
    """

    token_ids: np.ndarray
    log_probs: np.ndarray
    start: int
    end: int

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TopTokens)
            and (self.start, self.end) == (other.start, other.end)
            and np.array_equal(self.token_ids, other.token_ids)
            and np.array_equal(self.log_probs, other.log_probs)
        )

    def to_row(self) -> dict[str, Any]:
        """Plain values, since rows cross between processes in a form that knows no classes."""
        return {
            "count": self.token_ids.shape[1],
            "token_ids": self.token_ids.tobytes(),
            "log_probs": self.log_probs.tobytes(),
            "start": self.start,
            "end": self.end,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TopTokens:
        """The distributions of a row made by `to_row`."""
        token_ids, log_probs = (
            np.frombuffer(row[name], dtype).reshape(-1, row["count"])
            for name, dtype in (("token_ids", np.int32), ("log_probs", np.float32))
        )
        return cls(token_ids, log_probs, row["start"], row["end"])


def top_tokens(
    token_ids: Sequence[int], start: int, scores: Sequence[TokenScore], count: int
) -> TopTokens:
    """The distributions over the tokens of a refinement.

    Args:
        token_ids: the refinement. start: index of the first token that is scored.
        scores: of the scored tokens in their order. count: k.
    """
    shape = (len(token_ids), count)
    ids, log_probs = np.zeros(shape, np.int32), np.full(shape, -np.inf, np.float32)
    ids[:, 0], log_probs[:, 0] = token_ids, 0.0
    for state, score in enumerate(scores, start=start):
        listed = min(len(score.token_ids), count)
        log_probs[state] = -np.inf
        ids[state, :listed] = score.token_ids[:listed]
        log_probs[state, :listed] = score.log_probs[:listed]
    return TopTokens(ids, log_probs, start, start + len(scores))

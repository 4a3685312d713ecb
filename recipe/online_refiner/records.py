"""A rollout, its refinement, and the two together: the records that every room speaks in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from refiner_worker.top_tokens import TopTokens

SKIPPED_PERFECT = "skipped_perfect"
UNJUDGED = "unjudged"
"""Outcomes beside `refiner_worker.client.Outcome`: decided before and after asking the refiner."""


@dataclass(frozen=True)
class Score:
    """The verdict on one response: its unshaped reward, and whether there is one at all."""

    reward: float
    verdict: str = ""
    judged: bool = True


@dataclass(frozen=True)
class Refinement:
    """What became of the refinement a' (U tokens) of one rollout a (T tokens).

    Attributes:
        outcome: a `refiner_worker.client.Outcome`, `skipped_perfect` or `unjudged`.
        reward: R(a), unshaped.
        refined_reward: R(a'), unshaped; None without a judged a'.
        accepted: whether the filter accepts a'.
        token_ids: a', EOS included; empty if there is none.
        copied: U flags, 1 if the token is in a at the aligned place.
        divergence: index of the first token that differs from a at the same index.
        sources: U half-open ranges of tokens of a that each token copies or replaces.
        edit_distance: token edits from a to a'.
        generated_tokens: tokens that the refiner's engine decoded.
        engine_calls: requests that the refiner's engine answered.
        scored_tokens: tokens scored in a prefill: of a by `verify` decoding, of a' for
            `top_tokens`.
        judged_at_s: wall-clock time at which a was judged (Unix seconds).
        finished_at_s: wall-clock time at which the refinement was settled.
        verdict: the verdict on a, empty if the reward function gives none.
        refined_verdict: the verdict on a'.
        top_tokens: the refiner's distribution over each token of a', if the constraint asks for it
            and a' is accepted; None if it could not be had.
    """

    outcome: str
    reward: float
    judged_at_s: float
    finished_at_s: float
    refined_reward: float | None = None
    accepted: bool = False
    token_ids: tuple[int, ...] = ()
    copied: tuple[int, ...] = ()
    divergence: int = 0
    sources: tuple[tuple[int, int], ...] = ()
    edit_distance: int = 0
    generated_tokens: int = 0
    engine_calls: int = 0
    scored_tokens: int = 0
    verdict: str = ""
    refined_verdict: str = ""
    top_tokens: TopTokens | None = None

    @property
    def improved(self) -> bool:
        """Whether R(a') > R(a), whatever the filter accepts."""
        return self.refined_reward is not None and self.refined_reward > self.reward

    def to_row(self) -> dict[str, Any]:
        """The plain dict that is stored in the row's `extra_fields`."""
        row = {one.name: getattr(self, one.name) for one in fields(self)}
        return row | {"top_tokens": self.top_tokens and self.top_tokens.to_row()}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Refinement:
        """The refinement of a dict made by `to_row`."""
        top = row["top_tokens"]
        return cls(**row | {"top_tokens": top and TopTokens.from_row(top)})


@dataclass(frozen=True)
class Rollout:
    """One rollout of the batch, as the trainer reads it from the queue.

    Attributes:
        key: of its row. uid: of its prompt group. problem_id: the dataset's.
        prompt_ids, response_ids: s0 and a (T tokens).
        response_mask: T flags, 1 on the tokens that the policy is trained on.
        reward: unshaped. judged: whether there is a verdict.
        reference: the dataset's solution, empty if it has none.
        refinement: None if the run does not refine.
        verdict: of the judge, empty if the reward function gives none.
    """

    key: str
    uid: str
    problem_id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    response_mask: tuple[int, ...]
    reward: float
    judged: bool
    reference: str
    refinement: Refinement | None
    verdict: str = ""


@dataclass(frozen=True)
class Prompt:
    """A problem whose rollouts were dropped.

    Attributes:
        uid: of its group. prompt_ids: s0. reference: the dataset's solution, empty if it has none.
    """

    uid: str
    prompt_ids: tuple[int, ...]
    reference: str


@dataclass(frozen=True)
class RefinedRollout:
    """A rollout with a refinement that the filter accepted.

    Attributes:
        token_mask: U flags, 1 on the tokens of a' that the constraint is on.
        cross_entropy: c_t in nats on all U tokens, 0 if it is not asked for, finite in the token
            mask; None until it is measured.
        states: self-fed only, for each of the U tokens the step of a in whose state the policy is
            asked for it, -1 if it is not asked for; None if the policy reads a' itself.
    """

    rollout: Rollout
    refinement: Refinement
    token_mask: torch.Tensor
    cross_entropy: torch.Tensor | None = None
    states: torch.Tensor | None = None

    @property
    def key(self) -> str:
        """Of the rollout's row."""
        return self.rollout.key

    @property
    def asked(self) -> torch.Tensor:
        """U flags: the tokens whose c_t the policy is asked for. Shape (U,)."""
        if self.states is None:
            return torch.ones(len(self.refinement.token_ids), dtype=torch.bool)
        return self.states >= 0

    @property
    def masked_cross_entropy(self) -> torch.Tensor:
        """c_t in nats, 0 off the token mask. Shape (U,)."""
        if self.cross_entropy is None:
            raise ValueError(f"the cross entropy on the refinement of {self.key} is not measured")
        return self.cross_entropy.where(self.token_mask > 0, 0.0)

"""Controls of the supervised term: the same loss on other targets than the rollout's refinement.

`constraint.kind=recipe.study.placebos:Exchanged` or `…:OwnBest`, with the keys of `inject: sft`.
`constraint/ce_mean` is then that of the target, and episodes.jsonl has no cross entropy of a
rollout whose target is not its refinement (in the runs packed in docs/study it has the target's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from recipe.online_refiner.method.constraint import Step
from recipe.online_refiner.method.dynamic_sft import DynamicSft
from recipe.online_refiner.records import RefinedRollout, Refinement, Rollout
from refiner_worker.diff import token_diff


class Exchanged(DynamicSft):
    """Accepted refinements change places between problems, each going to one of like length.

    If the supervised term helps because it is more supervised tokens of right programs, this helps
    as much.
    """

    def begin(self, step: Step) -> None:
        super().begin(step)
        step.accepted = exchanged(step.accepted)


class OwnBest(DynamicSft):
    """The target is the best rollout of the same prompt where it beats this one; no refinement is
    learnt from.

    If the supervised term helps because it repeats what was good, no refiner is needed.
    """

    def begin(self, step: Step) -> None:
        super().begin(step)
        step.accepted = own_best(step.rollouts)


def exchanged(accepted: Sequence[RefinedRollout]) -> list[RefinedRollout]:
    """Each rollout with the refinement of the next longer one, the longest with the shortest.

    The smallest shift in the order of lengths is taken with which most go to another problem; those
    that would stay with their own are left out.
    """
    ordered = sorted(accepted, key=lambda one: (len(one.refinement.token_ids), one.key))
    shifts = range(1, len(ordered))
    best: list[RefinedRollout] = []
    for shift in shifts:
        pairs = zip(ordered, ordered[shift:] + ordered[:shift], strict=True)
        found = [
            replace(one, refinement=other.refinement, token_mask=other.token_mask)
            for one, other in pairs
            if one.rollout.problem_id != other.rollout.problem_id
        ]
        if len(found) > len(best):
            best = found
    return best


def own_best(rollouts: Sequence[Rollout]) -> list[RefinedRollout]:
    """Each judged rollout that another one of its prompt beats, with the best of these."""
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        if rollout.judged:
            groups.setdefault(rollout.uid, []).append(rollout)
    best = {uid: max(group, key=lambda one: one.reward) for uid, group in groups.items()}
    return [
        _with_target(rollout, best[rollout.uid])
        for group in groups.values()
        for rollout in group
        if best[rollout.uid].reward > rollout.reward
    ]


def _with_target(rollout: Rollout, target: Rollout) -> RefinedRollout:
    diff = token_diff(rollout.response_ids, target.response_ids)
    refinement = Refinement(
        outcome="own_best",
        reward=rollout.reward,
        judged_at_s=0.0,
        finished_at_s=0.0,
        refined_reward=target.reward,
        accepted=True,
        token_ids=target.response_ids,
        copied=diff.copied,
        divergence=diff.divergence,
        sources=diff.sources,
        edit_distance=diff.edit_distance,
    )
    return RefinedRollout(rollout, refinement, torch.ones(len(target.response_ids)))

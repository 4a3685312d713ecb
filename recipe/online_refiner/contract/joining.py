"""Whether a constraint gives the same if its refinements come as late as its `reads_at` allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from recipe.online_refiner.choices import Stage
from recipe.online_refiner.contract.measured import measured, measured_in_update
from recipe.online_refiner.contract.steps import small_step
from recipe.online_refiner.method.accepted import accepted_rollouts, with_cross_entropy
from recipe.online_refiner.method.constraint import Constraint, Step
from recipe.online_refiner.method.labels import RowLabels


def late_join_violations(make: Callable[[], Constraint]) -> Iterator[str]:
    """A sentence for each hook that gives something else on a step that is joined late.

    Args:
        make: a new constraint, which has seen no step yet.
    """
    early, late = (_given(make(), is_late) for is_late in (False, True))
    for hook, values in early.items():
        if values != late[hook]:
            yield (
                f"`{hook}` gives something else if refinements come as late as `reads_at` says: "
                "name the part of the step that is the first to read them"
            )


def _given(constraint: Constraint, is_late: bool) -> dict[str, Any]:
    """What the hooks give in one step, in the trainer's order, as plain values."""
    step, whole = small_step(), small_step()
    stage: Stage | None = None
    if is_late and constraint.needs(constraint.plan.settings).refinements:
        step.rollouts, step.accepted = [replace(one, refinement=None) for one in whole.rollouts], []
        step.improvement_ratio = None
        stage = constraint.joins_at(step)
    else:
        _join(constraint, step, whole)
    given: dict[str, Any] = {}
    if stage is Stage.LOG_PROBS:
        _join(constraint, step, whole)
    labels = constraint.labels(step)
    given["labels"] = _plain(labels)
    if labels:
        constraint.after_labels(step, measured(labels))
    if stage is Stage.ADVANTAGES:
        _join(constraint, step, whole)
    in_update = constraint.measures_in_update(step)
    if not in_update and any(one.cross_entropy is None for one in step.accepted):
        known = [torch.full((len(one.refinement.token_ids),), 0.5) for one in step.accepted]
        step.accepted = with_cross_entropy(step.accepted, known)
    penalty = constraint.penalty(step)
    given["penalty"] = None if penalty is None else (penalty.keys, penalty.values_BT.tolist())
    if stage is Stage.UPDATE:
        _join(constraint, step, whole)
    additions = constraint.additions(step)
    if additions is not None:
        rows = [(row.prompt_ids, row.response_ids, row.weights.tolist()) for row in additions.rows]
        given["additions"] = (rows, _plain(additions.labels), additions.policy_share)
        constraint.after_update(step, measured_in_update(additions))
    return given | {"metrics": constraint.metrics(step)}


def _join(constraint: Constraint, step: Step, whole: Step) -> None:
    step.rollouts, step.improvement_ratio = whole.rollouts, whole.improvement_ratio
    tokens = constraint.settings.tokens
    step.accepted = accepted_rollouts(step.rollouts, tokens, constraint.conditioning)
    constraint.begin(step)


def _plain(labels: Sequence[RowLabels]) -> list[Any]:
    return [
        (one.key, one.token_ids.tolist(), None if one.weights is None else one.weights.tolist())
        for one in labels
    ]

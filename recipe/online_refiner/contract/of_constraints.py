"""What every constraint must hold, checked on a small step written by hand.

In a test of your own: `assert constraint_violations("my.module:Mine") == []`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from recipe.online_refiner.contract.joining import late_join_violations
from recipe.online_refiner.contract.measured import measured, measured_in_update
from recipe.online_refiner.contract.steps import (
    TOTAL_STEPS,
    of_one_token,
    small_step,
    without_refinements,
)
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.method.accepted import accepted_rollouts, with_cross_entropy
from recipe.online_refiner.method.constraint import Additions, Constraint, Penalty, Step
from recipe.online_refiner.method.labels import RowLabels
from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.resolve.composing import argument_faults, composition_fault
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError

BASE = ("hardware=cpu_debug", "experiment=quickstart_sane")
"""What the constraint is composed with; overrides come after it."""
STEPS = {
    "with refinements": small_step,
    "without refinements": without_refinements,
    "of one token": of_one_token,
}


def constraint_violations(kind: str, overrides: Sequence[str] = ()) -> list[str]:
    """What is wrong with the constraint, a sentence each; empty if it keeps the contract.

    Args:
        kind: a value of `constraint.kind`. overrides: further `key=value`, Hydra's.
    """
    try:
        plan = _plan(kind, overrides)
    except ConfigError as error:
        return str(error).splitlines()
    except Exception as error:  # whatever a user's class raises is a violation, not a crash
        return [f"it raised before the start: {type(error).__name__}: {error}"]
    chosen = constraint_class(plan.config)
    found = [*_or_raised(_before_the_start(chosen, plan), chosen, "before the start")]
    for title, step in STEPS.items():
        found += _or_raised(_in_a_step(chosen, plan, step()), chosen, f"in a step {title}")
    if not found:
        found += _repeatable(chosen, plan)
        found += _or_raised(_resumable(chosen, plan), chosen, "around a checkpoint")
    if not found:
        found += late_join_violations(lambda: chosen(plan))
    return list(dict.fromkeys(found))


def _or_raised(checks: Iterator[str], chosen: type[Constraint], when: str) -> Iterator[str]:
    """What the checks find, and what the constraint raises in them, with its place in its file."""
    try:
        yield from checks
    except Exception as error:  # whatever a user's class raises is a violation, not a crash
        frames = traceback.extract_tb(error.__traceback__)
        own = [one for one in frames if one.filename == inspect.getfile(chosen)]
        place = f" ({Path(own[-1].filename).name}:{own[-1].lineno}, {own[-1].name})" if own else ""
        yield f"it raised {when}: {type(error).__name__}: {error}{place}"


def _plan(kind: str, overrides: Sequence[str]) -> RunPlan:
    config = copy.deepcopy(_composed(tuple(overrides)))
    config.constraint.kind = kind
    return resolve(config)


@functools.cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    """Composing takes most of a second, and tests of many constraints need one config."""
    faults = list(argument_faults(overrides))
    if faults:
        raise ConfigError("\n".join(faults))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG), version_base=None):
            return compose("online_refiner", [*BASE, *overrides])
    except HydraException as error:
        raise ConfigError(composition_fault(error, overrides)) from error


def _before_the_start(chosen: type[Constraint], plan: RunPlan) -> Iterator[str]:
    if bool(chosen.name) != (chosen.section is not None):
        yield "`name` and `section` belong together: give both, or neither"
    for fault in chosen.faults(plan):
        if "Fix: " not in fault:
            yield f"a fault must say how to fix it, after 'Fix: ': {fault!r}"


def _in_a_step(chosen: type[Constraint], plan: RunPlan, step: Step) -> Iterator[str]:
    """The hooks in the trainer's order."""
    constraint = chosen(plan)
    step = _conditioned(step, constraint)
    constraint.begin(step)
    labels = constraint.labels(step)
    yield from _of_labels(constraint, labels, step)
    if labels:
        constraint.after_labels(step, measured(labels))
    in_update = constraint.measures_in_update(step)
    if not in_update:
        _measure(step)
    penalty = constraint.penalty(step)
    if penalty is not None:
        yield from _of_penalty(penalty, step)
    if not in_update:
        yield from _of_metrics(constraint.metrics(step))
    additions = constraint.additions(step)
    if additions is not None:
        yield from _of_additions(constraint, additions)
        yield from _of_labels(constraint, additions.labels, step, weighted=True)
        yield from _of_metrics(constraint.after_update(step, measured_in_update(additions)))
    if in_update:
        if any(one.cross_entropy is None for one in step.accepted):
            yield "`measures_in_update` promises c_t, and `after_update` does not set it"
            return
        yield from _of_metrics(constraint.metrics(step))


def _conditioned(step: Step, constraint: Constraint) -> Step:
    """The step as the trainer opens it for this constraint."""
    tokens = constraint.settings.tokens
    accepted = accepted_rollouts(step.rollouts, tokens, constraint.conditioning)
    return replace(step, accepted=accepted)


def _of_labels(
    constraint: Constraint, labels: Sequence[RowLabels], step: Step, weighted: bool = False
) -> Iterator[str]:
    lengths = {rollout.key: len(rollout.response_ids) for rollout in step.rollouts}
    keys = [one.key for one in labels]
    if labels and not constraint.needs(constraint.plan.settings).own_loss:
        yield "labels need `Needs(own_loss=True)`"
    if len(set(keys)) != len(keys) or not set(keys) <= lengths.keys():
        yield "labels are on rollouts of the step, each once"
        return
    for one in labels:
        if tuple(one.token_ids.shape) != (lengths[one.key],):
            yield "there is one label for each token of the rollout, NO_LABEL included"
        if (one.weights is not None) != weighted:
            yield "labels of the update have weights, and those that are only measured have none"
        elif one.weights is not None and (
            one.weights.shape != one.token_ids.shape or not bool(torch.isfinite(one.weights).all())
        ):
            yield "labels have one finite weight for each token of the rollout"


def _of_penalty(penalty: Penalty, step: Step) -> Iterator[str]:
    lengths = {rollout.key: len(rollout.response_ids) for rollout in step.rollouts}
    unknown = [key for key in penalty.keys if key not in lengths]
    if unknown or len(set(penalty.keys)) != len(penalty.keys):
        yield f"the keys of a penalty are rollouts of the step, each once: {unknown or 'repeated'}"
        return
    longest = max((lengths[key] for key in penalty.keys), default=0)
    expected = (len(penalty.keys), longest)
    if tuple(penalty.values_BT.shape) != expected:
        yield f"a penalty of {expected} values is expected, not {tuple(penalty.values_BT.shape)}"
        return
    if not bool(torch.isfinite(penalty.values_BT).all()):
        yield "a penalty must be finite"
    if penalty.values_BT.requires_grad:
        yield "a penalty has no gradient: detach it"
    for key, row in zip(penalty.keys, penalty.values_BT, strict=True):
        if bool(row[lengths[key] :].any()):
            yield "a penalty is 0 beyond the rollout's last token"


def _of_additions(constraint: Constraint, additions: Additions) -> Iterator[str]:
    if not constraint.needs(constraint.plan.settings).own_loss:
        yield "additions to the update need `Needs(own_loss=True)`"
    if not 0.0 <= additions.policy_share <= 1.0:
        yield f"policy_share={additions.policy_share} is not within 0 and 1"
    for row in additions.rows:
        if not row.prompt_ids or not row.response_ids:
            yield "a row needs a prompt and a response of at least one token"
        if tuple(row.weights.shape) != (len(row.response_ids),):
            yield "a row has one weight for each token of its response"
        elif not bool(torch.isfinite(row.weights).all()):
            yield "the weights of a row must be finite"
        if row.targets is not None and len(row.targets.token_ids) != len(row.response_ids):
            yield "the targets of a row are one distribution for each token of its response"


def _of_metrics(metrics: dict[str, float]) -> Iterator[str]:
    for name, value in metrics.items():
        if "/" not in name:
            yield f"a metric's name has a group, as in 'constraint/{name}'"
        if not isinstance(value, float | int) or not math.isfinite(value):
            yield f"the metric {name} is {value!r}, and must be a finite number"


def _repeatable(chosen: type[Constraint], plan: RunPlan) -> Iterator[str]:
    penalties = []
    for _ in range(2):
        constraint = chosen(plan)
        step = _conditioned(small_step(), constraint)
        constraint.begin(step)
        labels = constraint.labels(step)
        if labels:
            constraint.after_labels(step, measured(labels))
        _measure(step)
        penalties.append(constraint.penalty(step))
    first, second = penalties
    if (first is None) != (second is None) or (
        first is not None
        and second is not None
        and not torch.equal(first.values_BT, second.values_BT)
    ):
        yield "the same step must give the same penalty"


def _resumable(chosen: type[Constraint], plan: RunPlan) -> Iterator[str]:
    trained = chosen(plan)
    trained.begin(small_step())
    state = trained.state(3, TOTAL_STEPS)
    try:
        stored = json.loads(json.dumps(state))
    except TypeError as error:
        yield f"`state` must be JSON: {error}"
        return
    resumed = chosen(plan)
    resumed.restore(stored)
    if resumed.state(3, TOTAL_STEPS) != stored:
        yield "a constraint that is restored from its state must have that state"
    chosen(plan).restore({})


def _measure(step: Step) -> None:
    """c_t by a pass of its own, unless labels have yielded it."""
    if all(one.cross_entropy is not None for one in step.accepted):
        return
    step.accepted = with_cross_entropy(
        step.accepted, [torch.full((len(one.refinement.token_ids),), 0.5) for one in step.accepted]
    )

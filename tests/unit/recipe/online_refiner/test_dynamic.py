"""The dynamic constraint's penalties and labels on one step, worked out by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from omegaconf import DictConfig
from steps import refinement, rollout, step_of

from recipe.online_refiner.method.constraint import Constraint, Step
from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.resolve.resolving import resolve

Compose = Callable[..., DictConfig]

RESPONSE, REFINED = (5, 6, 7), (5, 9, 6, 7)
"""9 was inserted before 6."""
COPIED, SOURCES = (1, 0, 1, 1), ((0, 1), (0, 1), (1, 2), (2, 3))


def opened(composed: Compose, *changes: str) -> tuple[Constraint, Step]:
    config = composed(*changes)
    constraint = constraint_class(config)(resolve(config))
    better, worse = (
        refinement(REFINED, COPIED, refined=refined, sources=SOURCES) for refined in (1.0, -1.0)
    )
    step = step_of(
        [rollout("a", RESPONSE, better), rollout("b", RESPONSE, worse)],
        tokens=constraint.settings.tokens,
        conditioning=constraint.conditioning,
        rollouts_a_mini_batch=2,
    )
    constraint.begin(step)
    return constraint, step


def penalty_of(composed: Compose, *changes: str) -> list[list[float]]:
    constraint, step = opened(composed, "constraint.lambda=0.5", *changes)
    (labels,) = constraint.labels(step)
    assert labels.token_ids.tolist() == [5, 9, 6]
    constraint.after_labels(step, [torch.tensor([1.0, 2.0, 4.0])])
    assert step.accepted[0].cross_entropy is not None
    assert step.accepted[0].cross_entropy.tolist() == [1.0, 2.0, 4.0, 0.0]
    penalty = constraint.penalty(step)
    assert penalty is not None
    assert penalty.keys == ("a",)
    values: list[list[float]] = penalty.values_BT.tolist()
    return values


def test_self_fed_the_rewards_lose_each_cross_entropy_on_its_own_step(composed: Compose) -> None:
    assert penalty_of(composed, "constraint.inject=reward") == [[0.5, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("accumulate", "gamma", "expected"),
    [
        ("none", 1.0, [0.5, 1.0, 2.0]),
        ("return_to_go", 1.0, [3.5, 3.0, 2.0]),
        ("return_to_go", 0.5, [1.5, 2.0, 2.0]),
    ],
)
def test_the_advantages_lose_what_is_still_to_come(
    composed: Compose, accumulate: str, gamma: float, expected: list[float]
) -> None:
    changes = (f"constraint.accumulate={accumulate}", f"algorithm.gamma={gamma}")
    assert penalty_of(composed, "constraint.inject=advantage", *changes) == [expected]


def test_teacher_forced_nothing_is_asked_for_on_the_rollouts(composed: Compose) -> None:
    changes = ("constraint.inject=advantage", "constraint.conditioning=teacher_forcing")
    constraint, step = opened(composed, *changes, "constraint.lambda=0.5")
    assert list(constraint.labels(step)) == []
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    step.accepted = [replace(one, cross_entropy=values) for one in step.accepted]
    penalty = constraint.penalty(step)
    assert penalty is not None
    # By position 0.5, 1 and 2 + 4 on the last token; then what is still to come.
    assert penalty.values_BT.tolist() == [[7.5, 7.0, 6.0]]


SELF_FED_SFT = ("constraint.inject=sft", "constraint.conditioning=self_feeding")


def test_self_fed_the_supervised_term_is_weighted_labels_and_no_row(composed: Compose) -> None:
    constraint, step = opened(composed, *SELF_FED_SFT, "constraint.tokens=aligned")
    assert constraint.measures_in_update(step)
    assert list(constraint.labels(step)) == []
    additions = constraint.additions(step)
    assert additions is not None
    assert list(additions.rows) == []
    (labels,) = additions.labels
    # The inserted 9 takes the state of 6. λ = 1, two rollouts, three tokens.
    assert labels.token_ids.tolist() == [5, 9, 7]
    assert labels.weights is not None
    assert labels.weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6])
    constraint.after_update(step, [torch.tensor([1.0, 2.0, 4.0])])
    assert step.accepted[0].cross_entropy is not None
    assert step.accepted[0].cross_entropy.tolist() == [1.0, 2.0, 0.0, 4.0]


def test_a_lambda_of_zero_adds_nothing_and_takes_nothing(composed: Compose) -> None:
    constraint, step = opened(
        composed, *SELF_FED_SFT, "constraint.tokens=first_edit", "constraint.lambda=0"
    )
    assert constraint.additions(step) is None
    # c_t is still seen, out of the pass for the old log-probs.
    (labels,) = constraint.labels(step)
    assert labels.token_ids.tolist() == [5, 9, -1]
    constraint, step = opened(composed, "constraint.inject=advantage", "constraint.lambda=0")
    constraint.after_labels(step, [torch.tensor([1.0, 2.0, 4.0])])
    assert constraint.penalty(step) is None


def test_a_cross_entropy_that_is_not_finite_drops_the_refinement(composed: Compose) -> None:
    constraint, step = opened(composed, "constraint.inject=advantage")
    constraint.after_labels(step, [torch.tensor([1.0, torch.inf, 4.0])])
    assert step.accepted == []
    assert constraint.penalty(step) is None


def test_self_fed_penalties_of_different_lengths_are_padded_on_the_right(composed: Compose) -> None:
    constraint, _ = opened(composed, "constraint.inject=reward", "constraint.lambda=0.5")
    rollouts = [
        rollout("a", (5,), refinement((9,), (0,))),
        rollout("b", (5, 6), refinement((5, 9), (1, 0))),
    ]
    step = step_of(rollouts, conditioning=constraint.conditioning)
    constraint.after_labels(step, [torch.tensor([1.0]), torch.tensor([2.0, 4.0])])
    penalty = constraint.penalty(step)
    assert penalty is not None
    assert penalty.keys == ("a", "b")
    assert penalty.values_BT.tolist() == [[0.5, 0.0], [1.0, 2.0]]


def test_an_adaptive_lambda_may_have_equal_bounds_and_no_lower_one_above(composed: Compose) -> None:
    def faults(*changes: str) -> str:
        plan = resolve(composed("constraint.schedule=adaptive", *changes))
        return "".join(constraint_class(plan.config).faults(plan))

    assert faults("constraint.lambda=0.5", "constraint.lambda_end=0.5") == ""
    assert "Fix: lower it" in faults("constraint.lambda=0.5", "constraint.lambda_end=0.6")
    constant = ("constraint.schedule=constant", "constraint.lambda=0.5")
    assert "λ stays 0.5. Fix: " in faults(*constant, "constraint.lambda_end=0.6")
    assert faults(*constant) == ""

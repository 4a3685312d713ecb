"""Each constraint on a step written by hand: what it takes, adds, reports and saves."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from steps import refinement, rollout, step_of

from recipe.online_refiner.choices import Conditioning, Place, Tokens
from recipe.online_refiner.method.chord import Chord
from recipe.online_refiner.method.constraint import Additions, Constraint, Step
from recipe.online_refiner.method.dynamic import penalty_on_rollouts, reduced_cross_entropy
from recipe.online_refiner.method.registry import CONSTRAINTS, constraint_class
from recipe.online_refiner.records import Prompt
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError

Compose = Callable[..., DictConfig]


TEACHER_FORCED = ("constraint.conditioning=teacher_forcing", "constraint.accumulate=none")


def made(composed: Compose, *overrides: str) -> Constraint:
    """With each penalty on its own step alone, read by teacher forcing."""
    plan = resolve(composed(*TEACHER_FORCED, *overrides))
    return constraint_class(plan.config)(plan)


def measured_step(tokens: Tokens = Tokens.ALL, number: int = 1) -> Step:
    """Two rollouts of two and one tokens, refined to three and two; one refinement too bad."""
    rollouts = [
        rollout("a_0", (5, 6), refinement((5, 7, 0), (1, 0, 0))),
        rollout("a_1", (9,), refinement((8, 0), (0, 0))),
        rollout("b_0", (9, 9, 9), refinement((1,), (0,), refined=-1.0)),
    ]
    return step_of(rollouts, [(0.5, 4.0, 1.0), (2.0, 3.0)], tokens, number=number)


@pytest.mark.parametrize(
    ("inject", "place"), [("reward", Place.REWARDS), ("advantage", Place.ADVANTAGES)]
)
def test_a_penalty_is_lambda_times_the_cross_entropy_of_what_was_accepted(
    composed: Compose, inject: str, place: Place
) -> None:
    constraint = made(composed, f"constraint.inject={inject}", "constraint.lambda=0.1")
    penalty = constraint.penalty(measured_step())
    assert penalty is not None
    assert (penalty.place, penalty.keys) == (place, ("a_0", "a_1"))
    # c_t at the same index, what is beyond the rollout's end on its last token.
    expected = torch.tensor([[0.05, 0.5], [0.5, 0.0]])
    torch.testing.assert_close(penalty.values_BT, expected)
    assert constraint.additions(measured_step()) is None
    assert constraint.metrics(measured_step())["constraint/penalty_mean"] == pytest.approx(
        0.1 * (5.5 + 5.0) / 3
    )


@pytest.mark.parametrize("inject", ["reward", "advantage", "sft"])
def test_lambda_zero_takes_and_adds_nothing(composed: Compose, inject: str) -> None:
    constraint = made(composed, f"constraint.inject={inject}", "constraint.lambda=0")
    step = measured_step()
    assert constraint.penalty(step) is None
    assert constraint.additions(step) is None
    assert not constraint.measures_in_update(step)


def test_a_step_without_accepted_refinements_is_left_alone(composed: Compose) -> None:
    step = step_of([rollout("a_0", (5, 6))], [])
    for inject in ("reward", "advantage"):
        assert made(composed, f"constraint.inject={inject}").penalty(step) is None
    additions = made(composed, "constraint.inject=sft").additions(step)
    assert additions is not None and not additions.rows


def test_tokens_outside_the_mask_cost_nothing(composed: Compose) -> None:
    constraint = made(composed, "constraint.inject=advantage", "constraint.lambda=1")
    penalty = constraint.penalty(measured_step(Tokens.EDITED))
    assert penalty is not None
    torch.testing.assert_close(penalty.values_BT, torch.tensor([[0.0, 5.0], [5.0, 0.0]]))


def test_the_supervised_rows_weigh_each_accepted_refinement_by_lambda_over_the_rollouts(
    composed: Compose,
) -> None:
    constraint = made(composed, "constraint.inject=sft", "constraint.lambda=2")
    step = measured_step()
    assert constraint.measures_in_update(step)
    additions = constraint.additions(step)
    assert additions is not None
    assert (additions.policy_share, additions.token_factor) == (1.0, False)
    first, second = additions.rows
    assert (first.prompt_ids, first.response_ids) == ((1, 2), (5, 7, 0))
    # λ / rollouts of a mini-batch / tokens: 2 / 4 / 3 and 2 / 4 / 2.
    torch.testing.assert_close(first.weights, torch.full((3,), 1 / 6))
    torch.testing.assert_close(second.weights, torch.full((2,), 1 / 4))


def test_the_update_yields_the_cross_entropy_and_a_broken_row_is_dropped(
    composed: Compose,
) -> None:
    constraint = made(composed, "constraint.inject=sft")
    step = measured_step()
    constraint.after_update(step, [torch.ones(3), torch.tensor([1.0, float("inf")])])
    assert [one.key for one in step.accepted] == ["a_0"]
    assert torch.equal(step.accepted[0].masked_cross_entropy, torch.ones(3))


@pytest.mark.parametrize("broken", [torch.inf, torch.nan])
def test_off_the_token_mask_a_cross_entropy_may_be_anything(
    composed: Compose, broken: float
) -> None:
    """The first token is copied, and only the edited ones are in the mask."""
    found = [rollout("a_0", (5, 6), refinement((5, 7, 0), (1, 0, 0)))]
    edited = step_of(found, [(broken, 4.0, 1.0)], Tokens.EDITED)
    assert [one.key for one in edited.accepted] == ["a_0"]
    constraint = made(composed, "constraint.inject=advantage", "constraint.lambda=1")
    penalty = constraint.penalty(edited)
    assert penalty is not None
    assert penalty.values_BT.tolist() == [[0.0, 5.0]]
    assert constraint.metrics(edited)["constraint/penalty_mean"] == 5.0
    supervised, step = made(composed, "constraint.inject=sft"), step_of(found, None, Tokens.EDITED)
    supervised.after_update(step, [torch.tensor([broken, 4.0, 1.0])])
    assert supervised.metrics(step)["constraint/penalty_mean"] == 2.5
    assert step_of(found, [(0.5, 4.0, broken)], Tokens.EDITED).accepted == []


def test_while_only_the_critic_trains_a_forward_pass_measures(composed: Compose) -> None:
    constraint = made(composed, "constraint.inject=sft")
    step = step_of([rollout("a_0", (5,), refinement((5,), (1,)))], trains_actor=False)
    assert not constraint.measures_in_update(step)
    assert constraint.additions(step) is None


def test_an_adaptive_lambda_goes_on_from_its_state(composed: Compose) -> None:
    overrides = ("constraint.schedule=adaptive", "constraint.adaptive_target=1.0")
    trained = made(composed, *overrides)
    trained.begin(measured_step())
    # Two of three improved: λ = 1 · min(1, (2/3) / 1).
    state = trained.state(1, 10)
    assert state == {"smoothed_ratio": pytest.approx(2 / 3), "lambda": pytest.approx(2 / 3)}
    resumed = made(composed, *overrides)
    assert resumed.state(1, 10)["lambda"] == 1.0
    resumed.restore(state)
    for one in (trained, resumed):
        one.begin(step_of([rollout("a_0", (5,), refinement((5,), (1,), refined=-1.0))]))
    assert resumed.state(2, 10) == trained.state(2, 10)


def test_chord_shares_the_update_between_the_policy_and_one_demonstration_a_prompt(
    composed: Compose,
) -> None:
    constraint = made(
        composed,
        *("constraint.kind=chord", "constraint.chord.decay_steps=0", "constraint.chord.phi=true"),
        *("constraint.chord.peak=0.25", "constraint.chord.valley=0.25"),
    )
    rollouts = [
        rollout("a_0", (5,), reference="x"),
        rollout("a_1", (6,), reference="x"),
        rollout("b_0", (7,), reference="y" * 100),
        rollout("c_0", (8,)),
    ]
    step = step_of(rollouts)
    additions = constraint.additions(step)
    assert additions is not None
    assert (additions.policy_share, additions.token_factor) == (0.75, True)
    # One demonstration for two mini-batches: it is in each of them, by μ / tokens.
    assert len(additions.rows) == 2
    for row in additions.rows:
        assert row.response_ids == [*map(ord, "```python\nx\n```"), 0]
        torch.testing.assert_close(row.weights, torch.full((16,), 0.25 / 16))
    metrics = constraint.after_update(step, [torch.tensor([1.0, 3.0]), torch.tensor([7.0, 7.0])])
    assert metrics == {
        "constraint/mu": 0.25,
        "constraint/expert_total": 1.0,
        "constraint/expert_ce_mean": 2.0,
    }


def test_a_demonstrations_tokens_without_a_finite_cross_entropy_are_left_out_of_its_mean(
    composed: Compose,
) -> None:
    constraint = made(composed, "constraint.kind=chord")
    step = step_of([rollout("a_0", (5,), reference="x")])
    name = "constraint/expert_ce_mean"
    seen = torch.tensor([1.0, torch.inf, 3.0, torch.nan])
    assert constraint.after_update(step, [seen])[name] == 2.0
    assert name not in constraint.after_update(step, [seen[1:2]])


def test_an_adaptive_lambda_follows_all_rollouts_of_the_step(composed: Compose) -> None:
    """Of the batch two in three improved, of all that were refined one in ten."""
    constraint = made(composed, "constraint.schedule=adaptive", "constraint.adaptive_target=1.0")
    constraint.begin(replace(measured_step(), improvement_ratio=0.1))
    assert constraint.state(1, 10)["lambda"] == pytest.approx(0.1)
    # A step that refined nothing says nothing.
    constraint.begin(replace(measured_step(), improvement_ratio=None))
    assert constraint.state(2, 10)["lambda"] == pytest.approx(0.1)


def test_chord_learns_the_demonstrations_of_problems_whose_groups_are_dropped(
    composed: Compose,
) -> None:
    constraint = made(composed, "constraint.kind=chord")
    dropped = (Prompt("b", (3, 4), "y"), Prompt("c", (5,), ""))
    step = step_of([rollout("a_0", (5,), reference="x")], dropped=dropped)
    additions = constraint.additions(step)
    assert additions is not None
    assert [(row.prompt_ids, row.response_ids[10]) for row in additions.rows] == [
        ((1, 2), ord("x")),
        ((3, 4), ord("y")),
    ]
    metrics = constraint.after_update(step, [torch.ones(16), torch.ones(16)])
    assert metrics["constraint/expert_total"] == 2.0


def test_chords_mix_holds_in_every_mini_batch(composed: Compose) -> None:
    constraint = made(
        composed,
        *("constraint.kind=chord", "constraint.chord.decay_steps=0"),
        *("constraint.chord.peak=0.75", "constraint.chord.valley=0.75"),
    )
    rollouts = [rollout(f"{group}_0", (5,), reference="x" * group) for group in range(1, 6)]
    additions = constraint.additions(step_of(rollouts))
    assert additions is not None
    # Five demonstrations on two mini-batches: μ/3 each in the first, μ/2 in the second.
    sums = [row.weights.sum().item() for row in additions.rows]
    assert sums == pytest.approx([0.25, 0.375, 0.25, 0.375, 0.25])


def test_without_demonstrations_chord_still_weighs_the_policy_by_the_rest(
    composed: Compose,
) -> None:
    fixed = ("constraint.chord.decay_steps=0", "constraint.chord.valley=0.25")
    constraint = made(composed, "constraint.kind=chord", "constraint.chord.peak=0.25", *fixed)
    step = step_of([rollout("a_0", (5,))])
    additions = constraint.additions(step)
    assert additions is not None
    assert (list(additions.rows), additions.policy_share) == ([], 0.75)
    assert not additions.change_nothing
    assert Additions().change_nothing
    assert constraint.after_update(step, []) == {
        "constraint/mu": 0.25,
        "constraint/expert_total": 0.0,
    }


@pytest.mark.parametrize("kind", ["none", "static_kl"])
def test_the_baselines_leave_every_step_alone(composed: Compose, kind: str) -> None:
    constraint, step = made(composed, f"constraint.kind={kind}"), measured_step()
    assert constraint.penalty(step) is None and constraint.additions(step) is None
    assert constraint.metrics(step) == constraint.state(1, 10) == {}
    assert constraint.after_update(step, []) == {}


def test_every_kind_is_reached_by_its_keys(composed: Compose) -> None:
    for name, expected in CONSTRAINTS.items():
        kind, _, inject = name.partition(".")
        overrides = [f"constraint.kind={kind}"] + [f"constraint.inject={inject}"] * bool(inject)
        assert constraint_class(composed(*overrides)) is expected


CHORD = ("constraint.kind=chord", "constraint.chord.peak=0.5", "constraint.chord.decay_steps=0")


def test_a_demonstration_may_be_as_long_as_a_response_and_no_longer(composed: Compose) -> None:
    constraint = made(composed, *CHORD)
    length = len("```python\nx\n```") + 1
    for limit, fits in ((length, True), (length - 1, False)):
        step = step_of([rollout("a_0", (5,), reference="x")], max_response_tokens=limit)
        additions = constraint.additions(step)
        assert additions is not None and bool(additions.rows) is fits


def test_a_solution_is_written_as_a_program_unless_the_reward_judges_something_else(
    composed: Compose,
) -> None:
    step = step_of([rollout("a_0", (5,), reference=" x\n")])
    for path, text in (
        ("pkg://reward.math_dapo", "x"),
        ("pkg://reward.apps", "```python\nx\n```"),
        ("docs/examples/keyword_reward.py", "```python\nx\n```"),
    ):
        constraint = made(composed, *CHORD, f"reward.custom_reward_function.path={path}")
        additions = constraint.additions(step)
        assert additions is not None
        assert additions.rows[0].response_ids == [*map(ord, text), 0]
        assert constraint.after_update(step, [torch.ones(1)])["constraint/expert_total"] == 1.0


def test_a_step_without_demonstrations_reports_none(composed: Compose) -> None:
    constraint, step = made(composed, *CHORD), step_of([rollout("a_0", (5,))])
    additions = constraint.additions(step)
    assert additions is not None and list(additions.rows) == []
    assert constraint.after_update(step, [])["constraint/expert_total"] == 0.0


def chord_faults(composed: Compose, *files: Path) -> list[str]:
    config = composed(*CHORD, "constraint.chord.valley=0.1")
    config.data.train_files = [str(path) for path in files]
    plan = resolve(config)
    return list(constraint_class(config).faults(plan))


def test_demonstrations_are_asked_of_the_files_that_can_be_read(
    composed: Compose, parquet: Path, tmp_path: Path
) -> None:
    missing, broken = tmp_path / "missing.parquet", tmp_path / "broken.parquet"
    broken.write_text("no parquet")
    (fault,) = chord_faults(composed, missing, parquet)
    assert "extra_info.reference_solution" in fault
    # What is wrong with a file, another rule says.
    assert chord_faults(composed, broken) == chord_faults(composed, missing) == []


@pytest.mark.parametrize("kind", ["none", "static_kl", "chord"])
def test_kinds_without_choices_are_called_by_their_name_and_read_no_rollout(
    composed: Compose, kind: str
) -> None:
    constraint = made(composed, f"constraint.kind={kind}")
    assert type(constraint).describe(constraint.plan.settings) == kind
    assert constraint.conditioning is Conditioning.TEACHER_FORCING


@pytest.mark.parametrize("inject", ["reward", "advantage", "sft"])
def test_every_injection_needs_refinements_and_is_called_by_its_choices(
    composed: Compose, inject: str
) -> None:
    constraint = made(composed, f"constraint.inject={inject}", "constraint.lambda=0.5")
    assert constraint.plan.refines
    assert type(constraint).describe(constraint.plan.settings) == (
        f"dynamic, inject={inject}, conditioning=teacher_forcing, λ=0.5"
    )


def test_teacher_forced_penalties_are_laid_out_row_by_row_however_long(composed: Compose) -> None:
    constraint = made(composed, "constraint.inject=advantage", "constraint.lambda=1")
    rollouts = [
        rollout("a_0", (5,), refinement((7, 8, 9), (0, 0, 0))),
        rollout("b_0", (5, 6, 7), refinement((9,), (0,))),
    ]
    penalty = constraint.penalty(step_of(rollouts, [(1.0, 2.0, 3.0), (4.0,)]))
    assert penalty is not None
    assert penalty.values_BT.tolist() == [[6.0, 0.0, 0.0], [4.0, 0.0, 0.0]]
    mean = made(composed, "constraint.inject=advantage", "constraint.reduce=mean")
    step = step_of(rollouts, [(1.0, 2.0, 3.0), (4.0,)])
    assert reduced_cross_entropy(step.accepted, mean.settings) == [2.0, 4.0]
    values = penalty_on_rollouts(step.accepted, mean.settings)
    assert values.tolist() == [[2.0, 0.0, 0.0], [4.0, 0.0, 0.0]]


def test_aligned_by_edits_a_penalty_is_on_what_a_token_replaces(composed: Compose) -> None:
    aligned = ("constraint.inject=advantage", "constraint.align=edit", "constraint.lambda=1")
    rollouts = [
        rollout("a_0", (5, 6, 7), refinement((8,), (0,), sources=[(1, 3)])),
        rollout("b_0", (5, 6), refinement((9, 8), (0, 0), sources=[(0, 1), (0, 1)])),
    ]
    penalty = made(composed, *aligned).penalty(step_of(rollouts, [(4.0,), (1.0, 2.0)]))
    assert penalty is not None
    assert penalty.values_BT.tolist() == [[0.0, 2.0, 2.0], [3.0, 0.0, 0.0]]


def test_a_class_is_found_by_its_module_or_its_file_and_is_the_same_each_time(
    composed: Compose, repo_root: Path, tmp_path: Path
) -> None:
    module = "recipe.online_refiner.method.chord:Chord"
    assert constraint_class(composed(f"constraint.kind={module}")) is Chord
    # A file of this test alone, which no other has imported.
    shutil.copy(repo_root / "docs" / "examples" / "repetition.py", tmp_path / "own.py")
    file = f"{tmp_path}/own.py:Repetition"
    found = constraint_class(composed(f"constraint.kind={file}"))
    assert found.__name__ == "Repetition"
    assert constraint_class(composed(f"constraint.kind={file}")) is found


@pytest.mark.parametrize(("kind", "fix"), [("chord2", "did you mean chord? set"), ("x", "set it")])
def test_the_nearest_kind_is_named_if_there_is_one(composed: Compose, kind: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"Fix: {fix}")):
        constraint_class(composed(f"constraint.kind={kind}"))


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("nowhere.at.all:Class", "No module named 'nowhere'"),
        ("docs/nowhere.py:Class", "No such file"),
        ("recipe.online_refiner.method.chord:Nothing", "no attribute 'Nothing'"),
        ("recipe.online_refiner.method.chord:ChordSettings", "is no subclass of"),
        ("recipe.online_refiner.method.chord:demonstration_rows", "is no subclass of"),
    ],
)
def test_what_is_no_constraint_is_refused(composed: Compose, reference: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        constraint_class(composed(f"constraint.kind={reference}"))

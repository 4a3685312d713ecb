"""Runs are an ablation only if one key of the whole configuration differs, and the rest agrees."""

from pathlib import Path
from typing import Any

import pytest

from recipe.analysis.ablation import ablation_sheets, absent_ablations, find_ablations
from recipe.analysis.runs import Run

LR = "actor_rollout_ref.actor.optim.lr"
CONFIGURATION = {
    "constraint.kind": "dynamic",
    "constraint.inject": "sft",
    "constraint.lambda": "1",
    "constraint.filter": "better",
    LR: "1e-6",
    "data.train_batch_size": "8",
}


def configured(name: str, arm: str = "a", seed: int = 0, **changes: Any) -> Run:
    keys = {"lambda_": "constraint.lambda", "filter": "constraint.filter", "lr": LR}
    keys |= {"kind": "constraint.kind", "batch": "data.train_batch_size"}
    changed = {keys[key]: value for key, value in changes.items()}
    configuration = CONFIGURATION | changed | {"run.seed": str(seed), "run.dir": f"/{name}"}
    known: dict[str, Any] = {"path": Path(name), "arm": arm, "seed": seed, "setting": ""}
    empty: dict[str, Any] = {"total_steps": None, "info": {}, "steps": (), "metrics": {}}
    return Run(**known, **empty, episodes=(), findings=(), configuration=configuration)


def test_runs_of_several_lambdas_are_grouped_ascending_with_the_unconstrained_first() -> None:
    runs = [
        configured("1", lambda_="10"),
        configured("2", lambda_="0.5"),
        configured("3", lambda_="0.5", seed=1),
        configured("4", arm="none", kind="none"),
    ]
    (ablation,) = find_ablations(runs)
    assert ablation.key == "constraint.lambda"
    assert ablation.where == "inject: sft, filter: better"
    assert ablation.groups == {"none": runs[3:], "λ = 0.5": runs[1:3], "λ = 10": runs[:1]}
    assert len(absent_ablations([ablation], runs)) == 1
    (sheet,) = ablation_sheets([ablation])
    assert "differ in constraint.lambda alone" in sheet.caption


@pytest.mark.parametrize(
    ("change", "key"), [({"filter": "off"}, "constraint.filter"), ({"lr": "1e-5"}, LR)]
)
def test_any_key_that_alone_differs_is_an_ablation(change: dict[str, Any], key: str) -> None:
    (ablation,) = find_ablations([configured("1"), configured("2", **change)])
    assert ablation.key == key and len(ablation.groups) == 2


@pytest.mark.parametrize("other", [{"lr": "1e-5"}, {"batch": "16"}, {"filter": "off"}])
def test_runs_that_differ_in_lambda_and_more_are_none_and_the_rest_is_named(
    other: dict[str, Any],
) -> None:
    runs = [configured("1"), configured("2", lambda_="2", **other)]
    assert find_ablations(runs) == ()
    words = absent_ablations((), runs)[0]
    assert "differ in λ alone" in words
    assert any(key in words for key in (LR, "data.train_batch_size", "constraint.filter"))


@pytest.mark.parametrize("kind", ["none", "static_kl"])
def test_a_weight_that_does_not_act_makes_no_ablation(kind: str) -> None:
    assert (
        find_ablations([configured("1", kind=kind), configured("2", kind=kind, lambda_="2")]) == ()
    )


def test_seeds_of_one_arm_are_no_ablation() -> None:
    runs = [configured("1"), configured("2", seed=1)]
    assert find_ablations(runs) == ()
    assert "train with constraint.lambda=…" in absent_ablations((), runs)[0]


def test_an_unconstrained_run_with_another_learning_rate_is_no_baseline() -> None:
    runs = [
        configured("1"),
        configured("2", lambda_="2"),
        configured("3", arm="none", kind="none", lr="1e-5"),
    ]
    (ablation,) = find_ablations(runs)
    assert list(ablation.groups) == ["λ = 1", "λ = 2"]

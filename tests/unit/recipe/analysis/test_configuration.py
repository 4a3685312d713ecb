"""Runs that differ in more than their seed are told apart, by name, and never averaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recipe.analysis.configuration import differences, read_configuration
from recipe.analysis.derived import REWARD_OVER_NONE, with_derived
from recipe.analysis.names import label_of
from recipe.analysis.runs import group_by_arm, load_run, load_runs

MakeRun = Callable[..., Path]


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "config.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("lr: 1.0e-06", "lr: 1.0e-05", "lr=1.0e-05"),
        ("train_batch_size: 8", "train_batch_size: 16", "train_batch_size=16"),
        ("filter: better", "filter: off", "filter=off"),
    ],
)
def test_runs_of_one_arm_that_differ_are_not_averaged(
    new_run: MakeRun, old: str, new: str, name: str
) -> None:
    new_run(seed=0, steps=2)
    folder = new_run(seed=1, steps=2)
    change(folder, old, new)
    found = load_runs([folder.parent])
    groups = group_by_arm(found.runs)
    assert [len(runs) for runs in groups.values()] == [1, 1]
    assert any(name in label_of(arm) for arm in groups)
    assert any("shown apart and not averaged" in str(finding) for finding in found.findings)


def test_every_difference_is_named(new_run: MakeRun) -> None:
    new_run(seed=0, steps=1)
    folder = new_run(seed=1, steps=1)
    change(folder, "lr: 1.0e-06", "lr: 1.0e-05")
    change(folder, "train_batch_size: 8", "train_batch_size: 16")
    (finding,) = [str(f) for f in load_runs([folder.parent]).findings if "averaged" in str(f)]
    assert "actor_rollout_ref.actor.optim.lr (1.0e-06, 1.0e-05)" in finding
    assert "data.train_batch_size (8, 16)" in finding


def test_a_lambda_that_only_run_json_has_tells_runs_apart(new_run: MakeRun) -> None:
    new_run(seed=0, steps=1)
    folder = new_run(seed=1, steps=1)
    info = (folder / "run.json").read_text()
    (folder / "run.json").write_text(info.replace("{", '{"lambda": 0.1, ', 1))
    assert len(group_by_arm(load_runs([folder.parent]).runs)) == 2


def test_seeds_folders_and_spellings_of_a_number_make_no_difference(new_run: MakeRun) -> None:
    first, second = load_run(new_run(seed=0)), new_run(seed=1)
    change(second, "lr: 1.0e-06", "lr: 0.000001")
    assert differences(first, load_run(second)) == {}


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("  lambda: 1.0", "  lambda: 1.0\n  accumulate: return_to_go", True),  # its default
        ("  lambda: 1.0", "  lambda: 1.0\n  accumulate: none", False),
        ("  lambda: 1.0", "  lambda: 1.0\n  not_known_yet: null", True),
        ("  lambda: 1.0", "  lambda: 1.0\n  not_known_yet: 3", False),
        ("run:", "refiner:\n  late_join: null\nrun:", True),
        ("run:", "refiner:\n  late_join: 2\nrun:", False),
    ],
)
def test_a_key_that_one_version_lacks_differs_only_if_it_is_not_at_its_default(
    new_run: MakeRun, old: str, new: str, same: bool
) -> None:
    first, second = load_run(new_run(seed=0, steps=1)), new_run(seed=1, steps=1)
    change(second, old, new)
    later = load_run(second)
    assert (differences(first, later) == {}) == (differences(later, first) == {}) == same


@pytest.mark.parametrize(
    ("arm", "added", "same"),
    [
        ("dynamic_sft", "critic:\n  optim:\n    lr: 3\nalgorithm:\n  adv_estimator: grpo", True),
        ("dynamic_sft", "critic:\n  optim:\n    lr: 3\nalgorithm:\n  adv_estimator: gae", False),
        ("dynamic_sft", "critic:\n  optim:\n    lr: 3\n  enable: false", True),
        ("dynamic_sft", "critic:\n  optim:\n    lr: 3\n  enable: true", False),
    ],
)
def test_keys_of_a_critic_count_if_there_is_one(
    new_run: MakeRun, arm: str, added: str, same: bool
) -> None:
    runs = []
    for seed, rate in enumerate("34"):
        folder = new_run(arm, seed=seed, steps=1)
        change(folder, "run:", added.replace("lr: 3", f"lr: {rate}") + "\nrun:")
        runs.append(load_run(folder))
    assert (differences(*runs) == {}) == same


@pytest.mark.parametrize(("arm", "same"), [("dynamic_sft", True), ("static_kl", False)])
def test_a_coefficient_counts_for_the_constraint_that_has_it(
    new_run: MakeRun, arm: str, same: bool
) -> None:
    first, folder = load_run(new_run(arm, seed=0, steps=1)), new_run(arm, seed=1, steps=1)
    change(folder, "coef: 0.05", "coef: 0.2")
    assert (differences(first, load_run(folder)) == {}) == same


def test_seeds_of_two_versions_are_averaged_and_the_new_keys_named(new_run: MakeRun) -> None:
    new_run(seed=0, steps=1)
    folder = new_run(seed=1, steps=1)
    change(folder, "run:", "refiner:\n  late_join: null\nrun:")
    found = load_runs([folder.parent])
    assert [len(runs) for runs in group_by_arm(found.runs).values()] == [2]
    (finding,) = [str(f) for f in found.findings if "no difference" in str(f)]
    assert "refiner.late_join=null" in finding


def test_variants_that_differ_in_a_late_key_alone_are_not_taken_for_one(new_run: MakeRun) -> None:
    """However long the names of their keys and values are."""
    for seed in range(3):
        folder = new_run(seed=seed, steps=1)
        rest = "".join(f"  key_{n}: {'long' * 20}{seed > 0}\n" for n in range(4))
        change(folder, "run:", f"zz:\n{rest}  last: {seed}\nrun:")
    groups = group_by_arm(load_runs([folder.parent]).runs)
    assert [len(runs) for runs in groups.values()] == [1, 1, 1]
    assert len({label_of(arm) for arm in groups}) == 3


def test_data_that_lie_in_the_same_place_beside_the_runs_are_the_same(new_run: MakeRun) -> None:
    runs = []
    for seed, root in enumerate(("/a", "/b")):
        folder = new_run(seed=seed, steps=1)
        change(folder, "run:", f"run:\n  dir: {root}/stress/x/seed{seed}")
        change(folder, "data:", f"data:\n  train_files: {root}/data/train.parquet")
        runs.append(load_run(folder))
    assert differences(*runs) == {}
    change(runs[1].path, "/b/data", "/b/other")
    assert list(differences(runs[0], load_run(runs[1].path))) == ["data.train_files"]


def test_runs_without_a_configuration_are_averaged_and_said_to_be_unchecked(
    new_run: MakeRun,
) -> None:
    new_run(seed=0, steps=1)
    folder = new_run(seed=1, steps=1)
    (folder / "config.yaml").unlink()
    found = load_runs([folder.parent])
    assert [len(runs) for runs in group_by_arm(found.runs).values()] == [2]
    assert any("taken for seeds of one arm without a check" in str(f) for f in found.findings)


def test_arms_that_differ_in_more_than_the_constraint_are_named_and_not_subtracted(
    new_run: MakeRun,
) -> None:
    new_run("none", steps=2)
    folder = new_run("dynamic_sft", steps=2)
    change(folder, "lr: 1.0e-06", "lr: 1.0e-05")
    found = load_runs([folder.parents[1]])
    (finding,) = [str(f) for f in found.findings if "also differ" in str(f)]
    assert "none and dynamic (sft) also differ in actor_rollout_ref.actor.optim.lr" in finding
    assert not any(REWARD_OVER_NONE in run.metrics for run in with_derived(found.runs))


def test_arms_that_differ_in_the_constraint_alone_are_compared(new_run: MakeRun) -> None:
    new_run("none", steps=2, total=2)
    folder = new_run("dynamic_advantage", steps=2, total=2)
    found = load_runs([folder.parents[1]])
    assert found.findings == ()
    assert all(REWARD_OVER_NONE in run.metrics for run in with_derived(found.runs))


@pytest.mark.parametrize("text", ["", "constraint: [1\n", "- a\n", "3"])
def test_a_broken_configuration_is_a_finding_and_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    content, (finding,) = read_configuration(tmp_path, {})
    assert content == {} and "configuration unknown" in finding.message

"""Configurations that an operator wrote and that cannot run: each refused, with its fix."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from config_copies import Original
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from wrong_configurations import (
    ACTOR,
    ANOTHER,
    CRITIC,
    ON_A_CLUSTER,
    ON_ONE_MACHINE,
    RIGHT,
    SERVED,
    WARNED,
    of_cluster,
    refused,
)

from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.preflight.rules import faults_of, warnings_on
from recipe.online_refiner.resolve.resolving import resolve

Compose = Callable[..., DictConfig]


def test_there_are_many() -> None:
    assert len({case[:-1] for case in (*ON_ONE_MACHINE, *ON_A_CLUSTER)}) >= 150


@pytest.mark.parametrize(("changes", "words"), ON_ONE_MACHINE, ids=lambda value: str(value)[-60:])
def test_on_one_machine(composed: Compose, changes: tuple[str, ...], words: str) -> None:
    faults = refused(composed(*changes))
    assert any(words in fault for fault in faults), faults
    assert all("Fix: " in fault or ": use " in fault or "; use " in fault for fault in faults)


@pytest.mark.parametrize("changes", RIGHT, ids=lambda value: str(value)[-60:])
def test_what_is_right_is_not_refused(composed: Compose, changes: tuple[str, ...]) -> None:
    assert refused(composed(*changes)) == []


@pytest.mark.parametrize("file", ["<no-python>", "<raises>"])
def test_a_constraint_that_cannot_be_loaded_is_refused(
    composed: Compose, folders: dict[str, str], file: str
) -> None:
    (fault,) = refused(composed(f"constraint.kind={folders[file]}:Mine"))
    assert "it could not be loaded (" in fault and "Fix: name a class" in fault


def test_a_constraints_file_may_hold_annotated_dataclasses(
    composed: Compose, folders: dict[str, str]
) -> None:
    assert refused(composed(f"constraint.kind={folders['<annotated-constraint>']}:Mine")) == []


@pytest.fixture(scope="module")
def on_cluster() -> Iterator[Compose]:
    """Composes an experiment on a machine with GPUs, each pair once."""
    made: dict[tuple[str, ...], Original] = {}

    def make(*groups: str) -> DictConfig:
        if groups not in made:
            made[groups] = Original(compose("online_refiner", list(groups)))
        return made[groups].copy()

    with initialize_config_dir(str(CONFIG), version_base=None):
        yield make


@pytest.mark.parametrize(
    ("groups", "changes", "words"), ON_A_CLUSTER, ids=lambda value: str(value)[-60:]
)
def test_on_a_cluster(
    on_cluster: Compose,
    folders: dict[str, str],
    parquet: Path,
    groups: tuple[str, ...],
    changes: tuple[str, ...],
    words: str,
) -> None:
    faults = refused(of_cluster(on_cluster(*groups), folders, parquet, changes))
    assert any(words in fault for fault in faults), faults


@pytest.mark.parametrize(("groups", "changes", "words"), WARNED, ids=lambda value: str(value)[-60:])
def test_what_is_hardly_meant_is_warned_of(
    on_cluster: Compose,
    folders: dict[str, str],
    maths: Path,
    groups: tuple[str, ...],
    changes: tuple[str, ...],
    words: str,
) -> None:
    plan = resolve(of_cluster(on_cluster(*groups), folders, maths, changes))
    assert [fault for fault in faults_of(plan) if "its disk has" not in fault] == []
    found = list(warnings_on(plan))
    assert any(words in warning for warning in found), found


@pytest.fixture(scope="module")
def maths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many problems of mathematics as a batch of DAPO's has."""
    path = tmp_path_factory.mktemp("maths") / "rows.parquet"
    row = {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": "How much is 1 + 1?"}],
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"index": 0},
    }
    pq.write_table(pa.Table.from_pylist([row] * 1024), path)
    return path


def test_a_wrong_fix_is_not_given(composed: Compose, folders: dict[str, str]) -> None:
    """Fixes that were once given and that would not have helped."""
    short = composed(ANOTHER, "refiner.model_path=<short-context>")
    assert not any("max_prompt_length=-" in fault for fault in refused(short))
    empty = refused(composed(*SERVED, "reward.reward_model.n_gpus_per_node=0"))
    assert not any("tensor_model_parallel_size=1" in fault for fault in empty)


def test_the_context_is_that_of_each_model(composed: Compose) -> None:
    """A refiner with a short context says nothing of the policy's, and the other way round."""
    faults = refused(composed(ANOTHER, "refiner.model_path=<short-context>"))
    assert [fault for fault in faults if "exceeds the model's context" in fault] == []
    assert any("refiner.model_path=" in fault and "has 64" in fault for fault in faults)


def test_the_quickstarts_servers_are_given_the_length_of_its_rows(composed: Compose) -> None:
    config = composed()
    resolve(config)
    lengths = config.data.max_prompt_length + config.data.max_response_length
    assert config.actor_rollout_ref.rollout.max_model_len == lengths
    config = composed("actor_rollout_ref.rollout.name=sglang")
    resolve(config)
    assert config.actor_rollout_ref.rollout.max_model_len == lengths + 1


def test_the_critics_rows_are_packed_as_its_own_key_says(composed: Compose) -> None:
    """verl reads a key that its YAML lacks, and would take 32,768 tokens."""
    config = composed(*CRITIC, "critic.ppo_max_token_len_per_gpu=9216")
    resolve(config)
    assert config.critic.ppo_infer_max_token_len_per_gpu == 9216


def test_prompts_that_are_left_out_leave_a_batch(composed: Compose, tmp_path: Path) -> None:
    """Twelve long and seven short rows: a batch of eight is not full, one of seven is."""
    path = tmp_path / "mixed.parquet"
    truth = {"style": "rule", "ground_truth": '{"inputs": ["1"], "outputs": ["1"]}'}
    rows = [
        {
            "data_source": "micro_apps",
            "prompt": [{"role": "user", "content": text}],
            "reward_model": truth,
            "extra_info": {"index": 0},
        }
        for text in ["word " * 400] * 12 + ["Print."] * 7
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    changes = (f"data.train_files={path}", "data.filter_overlong_prompts=true")
    faults = refused(composed(*changes))
    assert any("leaves 7 prompts of data.train_files, fewer than" in fault for fault in faults)
    fewer = (*changes, "data.train_batch_size=7", f"{ACTOR}.ppo_mini_batch_size=7")
    assert refused(composed(*fewer)) == []


def test_a_prompt_that_is_a_text_is_refused(composed: Compose, tmp_path: Path) -> None:
    path = tmp_path / "texts.parquet"
    row = {"data_source": "x", "prompt": "Print.", "reward_model": json.dumps({}), "extra_info": 1}
    pq.write_table(pa.Table.from_pylist([row] * 8), path)
    faults = refused(composed(f"data.train_files={path}"))
    assert any("has no lists of messages" in fault for fault in faults)

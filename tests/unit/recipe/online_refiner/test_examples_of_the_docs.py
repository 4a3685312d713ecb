"""The examples of docs/extending.md keep the contracts and are shown as they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir

from recipe.online_refiner.contract.of_constraints import constraint_violations
from recipe.online_refiner.contract.of_rewards import reward_violations
from recipe.online_refiner.contract.of_templates import template_violations
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.method.registry import load_constraint
from reward.traits import load_reward

EXAMPLES = Path(__file__).resolve().parents[4] / "docs" / "examples"
SHOWN = ("repetition.py", "keyword_reward.py", "terse.yaml", "config/experiment/own_dapo.yaml")


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_is_shown_whole(name: str) -> None:
    page = (EXAMPLES.parent / "extending.md").read_text(encoding="utf-8")
    assert f"\n{(EXAMPLES / name).read_text(encoding='utf-8').rstrip()}\n```" in page


def test_the_constraint_keeps_the_contract_with_and_without_settings_of_its_own() -> None:
    kind = f"{EXAMPLES / 'repetition.py'}:Repetition"
    assert constraint_violations(kind) == []
    assert constraint_violations(kind, ["+constraint.repetition.free=2"]) == []
    (fault,) = constraint_violations(kind, ["+constraint.repetition.fre=2"])
    assert "constraint.repetition.fre: unknown key. Fix: did you mean free?" in fault


def test_the_constraint_counts_repeated_tokens() -> None:
    constraint = load_constraint(f"{EXAMPLES / 'repetition.py'}:Repetition")
    module = sys.modules[constraint.__module__]
    assert torch.equal(module.repeats((5, 5, 5, 6, 5), 0), torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0]))
    assert torch.equal(module.repeats((5, 5, 5, 6, 5), 1), torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]))
    assert module.repeats((5,), 0).tolist() == [0.0]


def test_the_reward_keeps_the_contract(tmp_path: Path) -> None:
    row = {
        "data_source": "words",
        "reward_model": {"ground_truth": "alpha beta"},
        "extra_info": {"index": 0},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    path = str(EXAMPLES / "keyword_reward.py")
    assert reward_violations(path, [f"rows={tmp_path}/rows.parquet"]) == []
    score = load_reward(path).compute_score
    assert score("words", "alpha only", "alpha beta")["score"] == 0.5
    assert score("words", "alpha", "alpha beta", show_missing=True)["failing_test"] == (
        "the word 'beta' is missing"
    )


def test_the_template_keeps_the_contract() -> None:
    assert template_violations(str(EXAMPLES / "terse.yaml")) == []


def test_the_experiment_composes_from_a_folder_of_its_own() -> None:
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose(
            "online_refiner",
            [
                f"hydra.searchpath=[pkg://verl.trainer.config,file://{EXAMPLES / 'config'}]",
                *("experiment=own_dapo", "hardware=gpu8x80"),
            ],
        )
    assert (config.constraint.tokens, config.run.hardware) == ("edited", "gpu8x80")
    assert config.algorithm.filter_groups.enable

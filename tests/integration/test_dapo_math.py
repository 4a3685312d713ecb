"""DAPO on mathematics on the real stack: two steps of generated problems, by a model that guesses.

The experiments' own files with `hardware=cpu_debug` and small sizes; dynamic sampling is on. On a
CPU those for 32 billion parameters train as those for 7 do (test_experiments_check.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from penalised import check_return_to_go

from recipe.cpu.experiments import SMALL, SMALL_MATH
from recipe.cpu.math_model import ensure_math_model
from recipe.cpu.micro_math import TIMES, prepare_micro_math
from recipe.data.math_problems import TRAIN, VALIDATION

pytestmark = pytest.mark.timeout(1200)

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Train and validation rows of generated problems in the form of DAPO-Math-17k."""
    return prepare_micro_math(tmp_path_factory.mktemp("math"), 64, 16)


Train = Callable[..., Any]
BUFFER = 60
"""Tokens of 64: the length penalty begins after the fourth, and every response is longer."""


@pytest.fixture(scope="module")
def train(module_training: Make, files: tuple[Path, Path]) -> Train:
    """Trains an experiment for two steps, and returns what it wrote."""

    def trained(experiment: str, *changes: str) -> Any:
        made = module_training(
            *(f"experiment={experiment}", *SMALL, *SMALL_MATH),
            *(f"data.train_files={files[0]}", f"data.val_files={files[1]}"),
            f"actor_rollout_ref.model.path={ensure_math_model()}",
            f"reward.reward_kwargs.overlong_buffer_cfg.len={BUFFER}",
            *("trainer.total_training_steps=2", "trainer.logger=[console]", "run.log_share=1.0"),
            *changes,
        )
        made.start()
        made.finish()
        return made

    return trained


@pytest.fixture(scope="module")
def run(train: Train) -> Any:
    """DAPO with the penalty on advantages, and validation at the end, twice a problem."""
    return train("dynamic_dapo_math_7b", "trainer.test_freq=2", "constraint.lambda=0.1")


@pytest.fixture(scope="module", params=["dapo_math_7b", "dynamic_dapo_math_7b_sft"])
def another(request: pytest.FixtureRequest, train: Train) -> tuple[str, Any]:
    """DAPO alone, and with the constraint in the loss."""
    return request.param, train(request.param)


def test_each_problem_stands_in_the_rows_once(files: tuple[Path, Path]) -> None:
    card = json.loads((files[0].parent / "data_card.json").read_text())
    for split, path, rows in ((TRAIN, files[0], 64), (VALIDATION, files[1], 16)):
        assert card[split]["rows"] == pq.read_metadata(path).num_rows == rows
        assert card[split]["repeats"] == rows * (TIMES[split] - 1)
        assert card[split]["quarantined"] == 0


def check_steps(metrics: dict[int, dict[str, Any]]) -> None:
    """Both steps were trained, on full batches of groups that are partly right."""
    assert sorted(metrics) == [1, 2]
    for data in metrics.values():
        assert math.isfinite(data["actor/pg_loss"])
        assert data["actor/grad_norm"] > 0
        assert data["monitor/rollout_logprob_diff_max"] < 1e-4
        # Of the groups of sixteen that dynamic sampling lets through none is of one kind.
        assert data["monitor/group_reward_std"] > 0.4
        assert data["judge/failed_total"] == 0
        # A right response has 1 before the length penalty, and each is penalised.
        assert -2 <= data["critic/score/min"] < -1 < 0 < data["critic/score/max"] < 1


def test_both_steps_train_on_groups_that_are_partly_right(run: Any) -> None:
    check_steps(run.metrics())


def test_the_other_experiments_train_as_well(another: tuple[str, Any]) -> None:
    experiment, made = another
    metrics = made.metrics()
    check_steps(metrics)
    for data in metrics.values():
        if experiment == "dapo_math_7b":
            assert "constraint/kept_total" not in data
            continue
        assert data["constraint/kept_total"] > 0
        assert data["actor/sft_loss"] > 0
        assert data["refiner/engine_error_total"] == 0


def test_the_filter_compares_verls_scores_before_the_length_penalty(run: Any) -> None:
    episodes = run.records("episodes.jsonl")
    scores = {one[name] for one in episodes for name in ("reward", "refined_reward")} - {None}
    assert scores == {-1.0, 1.0}
    accepted = [one for one in episodes if one["accepted"]]
    assert accepted
    assert all((one["reward"], one["refined_reward"]) == (-1.0, 1.0) for one in accepted)
    assert all("Answer:" in one["refined"] for one in accepted)


def test_accepted_refinements_cost_advantage(run: Any) -> None:
    records = [*run.records("episodes.jsonl"), *run.records("rollouts.jsonl")]
    check_return_to_go(records, lambda_=0.1)
    for data in run.metrics().values():
        assert data["constraint/improvement_ratio"] > 0
        assert data["constraint/kept_total"] > 0
        assert data["constraint/penalty_mean"] > 0
        assert data["refiner/engine_error_total"] == 0


def test_validation_is_the_mean_over_the_samples_of_each_problem(run: Any) -> None:
    data = run.metrics()[2]
    accuracy = data["val-core/aime_2024/acc/mean@2"]
    assert 0 < accuracy < 1
    # Of eight problems and two samples of each.
    assert accuracy * 16 == pytest.approx(round(accuracy * 16))

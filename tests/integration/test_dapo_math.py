"""DAPO on mathematics on the real stack: two steps of generated problems, by a model that guesses.

The experiment's own file with `hardware=cpu_debug` and small sizes; dynamic sampling is on.
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


@pytest.fixture(scope="module")
def run(module_training: Make, files: tuple[Path, Path]) -> Any:
    """DAPO with the penalty on advantages, and validation at the end, twice a problem."""
    made = module_training(
        *("experiment=dynamic_dapo_math_7b", *SMALL, *SMALL_MATH),
        *(f"data.train_files={files[0]}", f"data.val_files={files[1]}"),
        f"actor_rollout_ref.model.path={ensure_math_model()}",
        *("trainer.total_training_steps=2", "trainer.test_freq=2", "trainer.logger=[console]"),
        *("constraint.lambda=0.01", "run.log_share=1.0"),
    )
    made.start()
    made.finish()
    return made


def test_each_problem_stands_in_the_rows_once(files: tuple[Path, Path]) -> None:
    card = json.loads((files[0].parent / "data_card.json").read_text())
    for split, path, rows in ((TRAIN, files[0], 64), (VALIDATION, files[1], 16)):
        assert card[split]["rows"] == pq.read_metadata(path).num_rows == rows
        assert card[split]["repeats"] == rows * (TIMES[split] - 1)
        assert card[split]["quarantined"] == 0


def test_both_steps_train_on_groups_that_are_partly_right(run: Any) -> None:
    metrics = run.metrics()
    assert sorted(metrics) == [1, 2]
    for data in metrics.values():
        assert math.isfinite(data["actor/pg_loss"])
        assert data["actor/grad_norm"] > 0
        assert data["monitor/rollout_logprob_diff_max"] < 1e-4
        # Of the groups of four that dynamic sampling lets through none is of one kind.
        assert data["monitor/group_reward_std"] > 0.4
        assert data["judge/failed_total"] == 0


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
    check_return_to_go(records, lambda_=0.01)
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

"""The real stack on the CPU: verl's trainer, Ray, FSDP2, two vLLM servers, judge and refiner."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torchdata.stateful_dataloader.sampler import RandomSampler

from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.tiny_model import ensure_checkpoint

pytestmark = pytest.mark.timeout(900)

BATCH = 8
SEED = 3


def expected_problems(train_file: Path, steps: int) -> dict[int, set[str]]:
    """The problems of each step, from the data's seed alone."""
    rows = pq.read_table(train_file, columns=["extra_info"])["extra_info"].to_pylist()
    sampler = RandomSampler(rows, generator=torch.Generator().manual_seed(SEED))
    order = [rows[index]["problem_id"] for index in sampler]
    return {step: set(order[(step - 1) * BATCH : step * BATCH]) for step in range(1, steps + 1)}


def test_a_killed_training_goes_on_where_it_stopped(
    tmp_path: Path, training: Callable[..., Any]
) -> None:
    train_file, val_file = prepare_micro_apps(tmp_path / "data", 64, 16)
    run = training(
        f"data.train_files={train_file}",
        f"data.val_files={val_file}",
        f"actor_rollout_ref.model.path={ensure_checkpoint()}",
        f"run.seed={SEED}",
        "trainer.total_training_steps=4",
        *("constraint.inject=sft", "constraint.lambda=1.0", "constraint.lambda_end=0.4"),
        "constraint.schedule=linear",
        *("refiner.source=ema", "refiner.ema.every_steps=1", "refiner.ema.decay=0.5"),
        "trainer.max_actor_ckpt_to_keep=4",
    )
    run.start()
    run.wait_for_step(2)
    run.kill()
    before = run.metrics()
    run.start()
    run.finish()
    metrics = run.metrics()

    assert sorted(metrics) == [1, 2, 3, 4]
    assert metrics[1] == before[1], "what had been logged was lost"
    lambdas = [metrics[step]["constraint/lambda"] for step in (1, 2, 3, 4)]
    assert lambdas == pytest.approx([1.0, 0.8, 0.6, 0.4])
    trained = defaultdict(set)
    for episode in run.records("episodes.jsonl"):
        trained[episode["step"]].add(episode["problem_id"])
    for step, problems in expected_problems(train_file, 4).items():
        assert trained[step], f"nothing was refined in step {step}"
        assert trained[step] <= problems, f"step {step} trained on other problems"

    for step, data in metrics.items():
        assert data["monitor/rollout_logprob_diff_max"] < 1e-4, f"weights of step {step}"
        assert math.isfinite(data["actor/pg_loss"])
        assert math.isfinite(data["actor/grad_norm"])
        assert data["judge/failed_total"] == 0
    assert metrics[1]["constraint/improvement_ratio"] > 0.05
    assert metrics[1]["constraint/kept_total"] > 0
    for data in metrics.values():
        # One mini-batch a step: the loss sees the weights that the cross entropy was measured with.
        assert data["actor/sft_loss"] == pytest.approx(data["constraint/penalty_mean"], rel=1e-3)
    # Copies of wrong programs only, since right ones are not refined: too rare here to count on.
    assert all(data["refiner/copied_token_ratio"] > 0.5 for data in metrics.values())
    assert metrics[1]["constraint/ce_edited_mean"] > metrics[1]["constraint/ce_copied_mean"]
    assert json.loads((run.folder / "run.json").read_text())["finished_at"]
    for step in (2, 3, 4):
        check_average(run.folder / "checkpoints", step)


def check_average(checkpoints: Path, step: int) -> None:
    """The refiner is half what it was a step ago and half the policy, before and after the kill."""
    before, average = (
        weights_of(checkpoints / f"global_step_{at}" / "refiner_average") for at in (step - 1, step)
    )
    policy = torch.load(
        checkpoints / f"global_step_{step}" / "actor" / "model_world_size_1_rank_0.pt",
        weights_only=False,
    )
    assert average.keys() <= policy.keys()
    for name, tensor in average.items():
        expected = (before[name] + policy[name].full_tensor()) / 2
        assert torch.allclose(tensor, expected, atol=1e-6), f"step {step}: {name}"


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder."""
    files = [load_file(path) for path in folder.glob("*.safetensors")]
    return {name: tensor for file in files for name, tensor in file.items()}

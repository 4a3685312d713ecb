"""Each way of constraining on the real stack, two steps on the CPU, one key away from another."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from recipe.cpu.experiments import SMALL
from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.micro_dialogue import prepare_micro_dialogue
from recipe.cpu.reward_model import ensure_reward_model, load, score
from recipe.cpu.tiny_model import ensure_checkpoint

pytestmark = pytest.mark.timeout(1200)

Metrics = dict[int, dict[str, Any]]

DAPO = (
    "algorithm=dapo",
    *("constraint.lambda=0.1", "constraint.schedule=adaptive", "constraint.align=edit"),
)
VARIANTS = {
    # With a critic, on dialogues, scored by a reward model that verl serves.
    "ppo_dialogue": (
        *("experiment=ppo_dialogue_dynamic", *SMALL),
        *("constraint.inject=reward", "constraint.lambda=0.5"),
        # With γ = λ = 1 the returns are the sums of the penalised rewards.
        *("algorithm.lam=1.0", "data.train_batch_size=32", "actor_rollout_ref.rollout.n=1"),
        *("actor_rollout_ref.actor.ppo_mini_batch_size=16", "trainer.logger=[console]"),
    ),
    # Refined by an average of the policy, on two servers in a pool of their own, of which one dies.
    "dapo_sft": (
        *(*DAPO, "constraint.inject=sft"),
        *("refiner.placement=pool", "refiner.pool.n_gpus_per_node=2"),
        *("refiner.source=ema", "refiner.ema.every_steps=1", "refiner.ema.decay=0.5"),
        "refiner.watch_every_s=0.5",
    ),
    # Adapters are trained, so fast that the policy is lost; their base, the reference, refines.
    "dapo_advantage": (
        *(*DAPO, "constraint.inject=advantage", "algorithm.filter_groups.enable=false"),
        *("refiner.placement=shared_base", "actor_rollout_ref.model.lora_rank=8"),
        *(
            "actor_rollout_ref.model.target_modules=all-linear",
            "actor_rollout_ref.actor.optim.lr=0.5",
        ),
    ),
    "chord_phi": (
        "constraint.kind=chord",
        *("constraint.chord.peak=0.1", "constraint.chord.valley=0.1"),
        *("constraint.chord.decay_steps=0", "constraint.chord.phi=true"),
    ),
    "static_kl": (
        *("algorithm=grpo", "actor_rollout_ref.rollout.n=4"),
        *("constraint.kind=static_kl", "constraint.static_kl.where=reward"),
        *("constraint.static_kl.coef=0.05", "monitor.kl_every_steps=2"),
    ),
}


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Train and validation rows of generated Prompt-Collection records."""
    return prepare_micro_dialogue(tmp_path_factory.mktemp("dialogues"), 64, 16)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    module_training: Callable[..., Any],
    dialogues: tuple[Path, Path],
) -> Callable[[str], Any]:
    """Two steps of a variant, which is trained when first asked for."""
    problems = prepare_micro_apps(tmp_path_factory.mktemp("data"), 64, 16)

    @functools.cache
    def run_of(name: str) -> Any:
        overrides = list(VARIANTS[name])
        if "dialogue" in name:
            overrides.append(f"reward.reward_model.model_path={ensure_reward_model()}")
        train_file, val_file = dialogues if "dialogue" in name else problems
        made = module_training(
            f"data.train_files={train_file}",
            f"data.val_files={val_file}",
            f"actor_rollout_ref.model.path={ensure_checkpoint()}",
            *("trainer.save_freq=-1", "trainer.total_training_steps=2"),
            *overrides,
        )
        made.start()
        if name == "dapo_sft":
            made.wait_for_step(1)
            made.kill_refiner_server(rank=1)
        made.finish()
        return made

    return run_of


@pytest.fixture(scope="module")
def trained(runs: Callable[[str], Any]) -> Callable[[str], Metrics]:
    """The metrics by step of a variant."""
    return lambda name: runs(name).metrics()


@pytest.mark.parametrize("name", VARIANTS)
def test_both_steps_are_finite_and_the_engines_agree(
    trained: Callable[[str], Metrics], name: str
) -> None:
    metrics = trained(name)
    assert sorted(metrics) == [1, 2]
    for data in metrics.values():
        assert math.isfinite(data["actor/grad_norm"])
        assert data["monitor/rollout_logprob_diff_max"] < 1e-4


def test_ppo_with_a_critic_takes_the_penalty_from_the_rewards_but_logs_them_raw(
    trained: Callable[[str], Metrics],
) -> None:
    metrics = trained("ppo_dialogue")
    for data in metrics.values():
        assert math.isfinite(data["critic/vf_loss"])
        assert data["critic/rewards/mean"] == data["critic/score/mean"]
        assert data["constraint/improvement_ratio"] > 0.05
        assert data["constraint/penalty_mean"] > 0
        assert data["critic/returns/max"] <= data["critic/score/max"] + 1e-4
    lowered = [data["critic/returns/min"] - data["critic/score/min"] for data in metrics.values()]
    assert max(lowered) <= 1e-4 and min(lowered) < -1e-3, "no return carries a penalty"


def test_the_served_reward_model_scores_answers_as_transformers_does(
    runs: Callable[[str], Any], dialogues: tuple[Path, Path]
) -> None:
    """From verl's reward loop through its router to vLLM's classify route and back."""
    run = runs("ppo_dialogue")
    assert all(data["judge/failed_total"] == 0 for data in run.metrics().values())
    infos = pq.read_table(dialogues[0])["extra_info"].to_pylist()
    asked = {info["problem_id"]: json.loads(info["conversation"]) for info in infos}
    episodes = [one for one in run.records("episodes.jsonl") if one["step"] == 1]
    assert len(episodes) > 16
    told, rewards = [], []
    for one in episodes:
        for text, reward in (("answer", "reward"), ("refined", "refined_reward")):
            if one[reward] is not None:
                reply = {"role": "assistant", "content": one[text]}
                told.append([*asked[one["problem_id"]], reply])
                rewards.append(one[reward])
    model, tokenizer = load(ensure_reward_model())
    expected = score(model, tokenizer, told)
    torch.testing.assert_close(torch.tensor(rewards), expected, atol=1e-3, rtol=0)
    assert expected.std() > 0.1, "the reward tells nothing apart"


@pytest.mark.parametrize("inject", ["sft", "advantage"])
def test_dapo_keeps_or_replaces_groups_and_carries_the_constraint(
    trained: Callable[[str], Metrics], inject: str
) -> None:
    metrics = trained(f"dapo_{inject}")
    for data in metrics.values():
        assert data["constraint/improvement_ratio"] > (0.05 if inject == "sft" else 0)
        assert 0 < data["constraint/lambda"] <= 0.1
        assert data["constraint/penalty_mean"] > 0
        assert data["constraint/kept_by_refinement_total"] >= 0
        assert ("actor/sft_loss" in data) == (inject == "sft")
        # With sft the loss measures, and no forward pass is made for the cross entropy.
        assert ("timing_s/constraint_ce" in data) == (inject == "advantage")
    if inject == "advantage":
        moved = metrics[1]["critic/returns/mean"] - metrics[1]["critic/advantages/mean"]
        assert moved > 0, "the penalty lowers the advantages, not the returns"


def test_a_refiner_server_that_dies_in_a_step_takes_neither_the_step_nor_the_run_with_it(
    runs: Callable[[str], Any],
) -> None:
    run = runs("dapo_sft")
    assert run.metrics()[1]["refiner/replicas_alive"] == 2
    assert sorted(run.metrics()) == [1, 2]
    assert run.logged("refiner server 1 is dead")


def test_an_averaged_refiner_is_half_way_between_where_it_was_and_the_policy(
    runs: Callable[[str], Any],
) -> None:
    run = runs("dapo_sft")
    assert all("timing_s/refiner_load" in data for data in run.metrics().values())
    start, average = (
        weights_of(folder) for folder in (ensure_checkpoint(), run.folder / "refiner_average")
    )
    assert start.keys() <= average.keys()
    moved = [name for name in start if not torch.equal(start[name].float(), average[name])]
    assert len(moved) > len(start) / 2


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder."""
    files = [load_file(path) for path in folder.glob("*.safetensors")]
    return {name: tensor for file in files for name, tensor in file.items()}


def test_base_weights_still_refine_when_the_adapters_have_lost_the_policy(
    trained: Callable[[str], Metrics],
) -> None:
    lost = trained("dapo_advantage")[2]
    assert lost["monitor/kl_to_reference"] > 5
    assert lost["refiner/engine_error_total"] == 0
    # The lost policy's weights would mend nothing at all.
    assert lost["constraint/improvement_ratio"] > 0


def test_chord_trains_on_reference_solutions_by_phi(trained: Callable[[str], Metrics]) -> None:
    metrics = trained("chord_phi")
    for data in metrics.values():
        assert data["constraint/mu"] == pytest.approx(0.1)
        assert data["constraint/expert_total"] == 8
        assert data["constraint/expert_ce_mean"] > 0
        # φ is at most 1/4, and the term is μ times the mean over tokens of φ·c.
        assert 0 < data["actor/sft_loss"] < 0.1 * 0.25 * 2 * data["constraint/expert_ce_mean"]


def test_static_kl_in_the_reward_is_watched_at_each_step(
    trained: Callable[[str], Metrics],
) -> None:
    metrics = trained("static_kl")
    for data in metrics.values():
        # Static KL needs the reference at each step, however rarely the KL is to be watched.
        assert "monitor/kl_to_reference" in data
        assert data["actor/reward_kl_penalty_coeff"] == pytest.approx(0.05)
        assert "refiner/verbatim_total" not in data

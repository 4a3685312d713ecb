"""Wrong configurations, each refused with the key and the fix before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from model_folders import model_folder
from omegaconf import DictConfig

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.preflight.__main__ import refusal
from recipe.online_refiner.preflight.disk_rules import Disk, disk_faults
from recipe.online_refiner.preflight.memory import GIB
from recipe.online_refiner.preflight.report import preflight
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError

Compose = Callable[..., DictConfig]

NO_CACHE = "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes=null"
GPU = ("trainer.device=cuda", "machine.gpu_memory_gib=79", "machine.gpus_per_node=4",
       "machine.nodes=1", NO_CACHE)  # fmt: skip
DAPO = ("algorithm.filter_groups.enable=true",)
SERVED = ("reward.reward_model.enable=true", "reward.reward_model.enable_resource_pool=true",
          f"reward.reward_model.model_path={ensure_checkpoint()}")  # fmt: skip

WRONG: list[tuple[tuple[str, ...], str]] = [
    # Our own sections: types, ranges, spelling.
    (("constraint.kind=dynamics",), "constraint.kind='dynamics'"),
    (("constraint.inject=loss",), "constraint.inject='loss'"),
    (("constraint.lamda=1.0",), "constraint.lamda: unknown key. Fix: did you mean lambda?"),
    (("constraint.lambda=-1",), "constraint.lambda=-1"),
    (("constraint.filter=best",), "constraint.filter='best'"),
    (("constraint.chord.peak=1.5",), "constraint.chord.peak=1.5"),
    (("refiner.placement=remote",), "refiner.placement='remote'"),
    (("refiner.temperature=hot",), "refiner.temperature='hot'"),
    (("refiner.pool.nnodes=0",), "refiner.pool.nnodes=0"),
    (("run.seed=-1",), "run.seed=-1"),
    (("monitor.kl_every_steps=0",), "monitor.kl_every_steps=0"),
    (("run.log_share=1.5",), "run.log_share=1.5"),
    (("run.log_share=-0.1",), "run.log_share=-0.1"),
    # Files, models and lengths.
    (("data.train_files=/nowhere/train.parquet",), "data.train_files='/nowhere/train.parquet'"),
    (("actor_rollout_ref.model.path=/nowhere/model",), "actor_rollout_ref.model.path"),
    (("refiner.model_path=./nowhere",), "refiner.model_path='./nowhere'"),
    (("refiner.template=code-v9",), "refiner.template='code-v9'"),
    (("data.max_prompt_length=2",), "data.max_prompt_length=2"),
    (("data.max_response_length=9000",), "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192"),
    (("trainer.resume_mode=resume_path",), "trainer.resume_from_path=None"),
    (("trainer.total_training_steps=0",), "trainer.total_training_steps=0"),
    # Batches, GPUs and pools.
    (("actor_rollout_ref.actor.ppo_mini_batch_size=5",), "data.train_batch_size=8"),
    (
        ("trainer.n_gpus_per_node=3", "actor_rollout_ref.rollout.n=2"),
        "actor_rollout_ref.actor.ppo_mini_batch_size=4: 8 rows",
    ),
    (
        ("actor_rollout_ref.actor.use_dynamic_bsz=false",),
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=null",
    ),
    (
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100",),
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100",
    ),
    (
        ("actor_rollout_ref.rollout.tensor_model_parallel_size=2",),
        "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
    ),
    (
        ("refiner.rollout={tensor_model_parallel_size: 3}",),
        "refiner.rollout.tensor_model_parallel_size=3",
    ),
    (
        ("actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",),
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
    ),
    (
        ("refiner.rollout={gpu_memory_utilisation: 0.3}",),
        "refiner.rollout.gpu_memory_utilisation: verl's rollout config has no such key. Fix: did "
        "you mean gpu_memory_utilization?",
    ),
    ((*GPU, "trainer.n_gpus_per_node=8"), "trainer.n_gpus_per_node=8: global_pool asks for 8"),
    (
        (*GPU, "trainer.n_gpus_per_node=4", "refiner.placement=pool"),
        "the pools want 5 GPUs (global_pool 4, refiner_pool 1)",
    ),
    (
        (*GPU, "actor_rollout_ref.rollout.gpu_memory_utilization=0.6"),
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.6: while rollouts are made",
    ),
    (
        (*GPU, "refiner.rollout={gpu_memory_utilization: 0.01}"),
        "refiner.rollout.gpu_memory_utilization=0.01: the refiner server's",
    ),
    # verl's DAPO path.
    (
        (*DAPO, "actor_rollout_ref.rollout.n=1"),
        "actor_rollout_ref.rollout.n=1: algorithm.adv_estimator=grpo compares the rollouts",
    ),
    (
        (*DAPO, "algorithm.filter_groups.max_num_gen_batches=10"),
        "algorithm.filter_groups.max_num_gen_batches=10: verl ignores it",
    ),
    ((*DAPO, "data.gen_batch_size=32"), "data.gen_batch_size=32"),
    (
        (*DAPO, "algorithm.filter_groups.max_inflight_gen_batches=0"),
        "algorithm.filter_groups.max_inflight_gen_batches=0",
    ),
    (
        (*DAPO, "reward.reward_model.enable=true"),
        "reward.reward_model.enable_resource_pool=False: a reward model that shares",
    ),
    # The reward.
    (
        ("reward.custom_reward_function.path=pkg://reward.nothing",),
        "reward.custom_reward_function.path='pkg://reward.nothing'",
    ),
    (
        ("reward.custom_reward_function.reward_kwargs={timeout: 4.0}",),
        "reward.custom_reward_function.reward_kwargs: judge setting timeout=4.0 is unknown",
    ),
    (
        ("reward.custom_reward_function.reward_kwargs={timeout_s: 0}",),
        "reward.custom_reward_function.reward_kwargs: judge setting timeout_s=0",
    ),
    (
        ("reward.reward_model.enable=true", "reward.reward_model.enable_resource_pool=true"),
        "refiner.perfect_reward=1.0: a learned reward has no maximum",
    ),
    (
        (*SERVED, "reward.reward_model.rollout.tensor_model_parallel_size=2"),
        "reward.reward_model.rollout.tensor_model_parallel_size=2: a server of 2 GPUs does not "
        "divide the 1",
    ),
    (
        (*SERVED, "reward.reward_model.rollout.max_model_len=100"),
        "its context of 100 tokens does not hold data.max_prompt_length",
    ),
    (
        ("reward.reward_kwargs={overlong_buffer_cfg: {enable: true, len: 8}}",),
        "reward.reward_kwargs.overlong_buffer_cfg.enable=True",
    ),
    # verl's trainer.
    (("trainer.v1.trainer_mode=fully_async",), "trainer.v1.trainer_mode='fully_async'"),
    (("actor_rollout_ref.actor.shuffle=true",), "actor_rollout_ref.actor.shuffle=True"),
    (
        ("constraint.inject=advantage", "algorithm.adv_estimator=gae"),
        "algorithm.adv_estimator='gae'",
    ),
]


def faults_of(config: DictConfig) -> list[str]:
    try:
        plan = resolve(config)
    except ConfigError as error:
        return str(error).splitlines()
    return list(preflight(plan).faults)


def test_the_quickstart_passes_and_says_what_will_run(composed: Compose) -> None:
    config = composed()
    report = preflight(resolve(config))
    assert report.faults == ()
    text = report.text()
    for words in ("actor", "policy servers", "refiner", "judge", "8 prompts × 8 rollouts"):
        assert words in text


def test_at_least_thirty_configurations_are_in_the_table() -> None:
    assert len(WRONG) >= 30


@pytest.mark.parametrize(("overrides", "key"), WRONG, ids=lambda value: str(value)[-60:])
def test_a_wrong_configuration_is_refused_with_key_and_fix(
    composed: Compose, overrides: tuple[str, ...], key: str
) -> None:
    faults = faults_of(composed(*overrides))
    named = [fault for fault in faults if key in fault]
    assert named, f"no fault names {key!r}: {faults}"
    remedies = ("Fix: ", "built in: ", "; use ", ": use ")
    assert any(word in fault for fault in named for word in remedies)


def test_all_faults_are_reported_at_once(composed: Compose) -> None:
    text = refusal(
        faults_of(
            composed(
                "data.train_files=/nowhere/train.parquet",
                "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100",
                "trainer.total_training_steps=0",
            )
        )
    )
    assert text.count("\n- ") == 3


def test_a_model_too_large_for_the_gpu_is_refused_from_its_config_alone(
    composed: Compose, tmp_path: Path
) -> None:
    """70 billion parameters: 16 bytes each over 4 GPUs are 280 GB a GPU, of 85."""
    folder = model_folder(tmp_path / "model", hidden_size=8192, num_hidden_layers=80,
                          intermediate_size=28672, num_attention_heads=64,
                          num_key_value_heads=8, vocab_size=128256)  # fmt: skip
    config = composed(*GPU, f"actor_rollout_ref.model.path={folder}", "trainer.n_gpus_per_node=4")
    faults = faults_of(config)
    assert any("ppo_max_token_len_per_gpu" in fault and "an update" in fault for fault in faults)


def test_a_model_that_is_no_model_is_named(composed: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    faults = faults_of(composed(f"actor_rollout_ref.model.path={folder}"))
    assert any("its config.json could not be read" in fault for fault in faults)


def test_less_isolation_than_required_is_refused(composed: Compose) -> None:
    config = composed("reward.custom_reward_function.reward_kwargs={min_level: 1, max_level: 1}")
    assert faults_of(config) == []
    config = composed("reward.custom_reward_function.reward_kwargs={min_level: 3, max_level: 3}")
    faults = faults_of(config)
    assert all("min_level=3" in fault for fault in faults)


def test_checkpoints_that_do_not_fit_the_disk_are_refused(composed: Compose) -> None:
    plan = resolve(composed())
    assert list(disk_faults(plan, Disk(one=GIB, kept=3 * GIB, free=3 * GIB))) == []
    (fault,) = disk_faults(plan, Disk(one=GIB, kept=3 * GIB, free=2 * GIB))
    assert "trainer.default_local_dir" in fault and "2.0 GiB free" in fault and "Fix: " in fault


def test_a_job_of_rays_may_not_write_into_its_copy_of_the_working_directory(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert any("run.dir='runs/x'" in fault for fault in faults_of(composed("run.dir=runs/x")))
    assert faults_of(composed("run.dir=/somewhere/shared")) == []


def test_an_interruption_without_checkpoints_is_warned_of(composed: Compose) -> None:
    config = composed("trainer.save_freq=-1")
    report = preflight(resolve(config))
    assert report.passes
    assert any("trainer.save_freq=-1" in warning for warning in report.warnings)

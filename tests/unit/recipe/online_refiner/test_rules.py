"""Every rule of the preflight, met by a configuration that breaks it; the others stay silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.preflight.rules import RULES, Rule
from recipe.online_refiner.resolve.resolving import resolve
from reward import apps, dialogue
from reward.verdict import JudgeResult, Verdict

Compose = Callable[..., DictConfig]

NO_CACHE = "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes=null"
GPU = ("trainer.device=cuda", "machine.gpu_memory_gib=79", "machine.gpus_per_node=4",
       "machine.nodes=1", NO_CACHE)  # fmt: skip
SERVED = (
    *("reward.reward_model.enable=true", "reward.reward_model.enable_resource_pool=true"),
    f"reward.reward_model.model_path={ensure_checkpoint()}",
)
MODEL_OF_CRITIC = f"critic.model.path={ensure_checkpoint()}"
FILTERED = (
    *("algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=score"),
    "reward.reward_manager.name=dapo",
)
BROKEN: dict[str, tuple[tuple[str, ...], str]] = {
    "check_shapes": (("critic.enable=true", "critic.model.path=/nowhere"), "critic.model.path"),
    "check_mode": (("trainer.v1.trainer_mode=fully_async",), "trainer.v1.trainer_mode"),
    "check_refinable": (
        ("actor_rollout_ref.rollout.multi_turn.enable=true",),
        "multi_turn.enable=True",
    ),
    "check_decoding": (
        ("refiner.decoding=copy", "refiner.rollout={name: sglang}"),
        "refiner.decoding=copy",
    ),
    "check_top_tokens": (
        ("constraint.kind=distill", "constraint.distill.top_k=21"),
        "engine_kwargs.vllm.max_logprobs=20",
    ),
    "check_constraint": (
        ("constraint.kind=chord", "constraint.chord.peak=0.01"),
        "constraint.chord.valley=0.05",
    ),
    "check_watched_reading": (
        ("monitor.self_fed_ce=true", "actor_rollout_ref.model.use_fused_kernels=true"),
        "monitor.self_fed_ce=True reads the logits",
    ),
    "check_estimator": (
        ("algorithm.adv_estimator=grpoo",),
        "algorithm.adv_estimator='grpoo': verl has no such estimator. Fix: "
        "algorithm.adv_estimator=grpo",
    ),
    "check_source": (("refiner.source=model",), "refiner.model_path=None"),
    "check_shared_base": (("refiner.placement=shared_base",), "lora_rank=0"),
    "check_late_join": (
        ("refiner.late_join=true",),
        "refiner.late_join=True with refiner.placement=colocated",
    ),
    "check_files": (("data.val_files=/nowhere/test.parquet",), "data.val_files"),
    "check_batch": (("data.train_batch_size=24",), "above the 16 rows"),
    "check_model_folders": (
        ("refiner.source=model", "refiner.model_path=./nowhere"),
        "no model folder with a config.json",
    ),
    "check_template": (("refiner.template=code-v9",), "refiner.template='code-v9'"),
    "check_prompts": (("data.max_prompt_length=2",), "data.max_prompt_length=2"),
    "check_template_budget": (("refiner.max_prompt_length=3",), "refiner.max_prompt_length=3"),
    "check_context": (
        ("actor_rollout_ref.rollout.max_model_len=100",),
        "actor_rollout_ref.rollout.max_model_len=100",
    ),
    "check_refiner_context": (
        ("refiner.max_prompt_length=99999",),
        "refiner.max_prompt_length=99999",
    ),
    "check_vocabulary": (
        ("actor_rollout_ref.model.path=<small-vocabulary>",),
        "its embedding has 100 rows",
    ),
    "check_refiner_tokenizer": (
        ("refiner.source=model", "refiner.model_path=<other-tokenizer>"),
        "its tokenizer is not the policy's",
    ),
    "check_engines": (("actor_rollout_ref.rollout.name=vlm",), "did you mean vllm?"),
    "check_strategies": (
        ("critic.enable=true", "critic.strategy=megatron", MODEL_OF_CRITIC),
        "critic.strategy=megatron: the actor shares its processes",
    ),
    "check_optimizers": (
        ("actor_rollout_ref.actor.optim.lr_decay_style=cosine",),
        "actor_rollout_ref.actor.optim.lr_decay_style='cosine': verl's optimizer under fsdp2",
    ),
    "check_loggers": (("trainer.logger=[console, tensorbord]",), "did you mean tensorboard?"),
    "check_heads": (
        ("actor_rollout_ref.rollout.tensor_model_parallel_size=3",),
        "attention heads, which 3 does not divide",
    ),
    "check_layers": (
        (
            "actor_rollout_ref.actor.strategy=megatron",
            "actor_rollout_ref.actor.megatron={tensor_model_parallel_size: 1, "
            "context_parallel_size: 1, pipeline_model_parallel_size: 3}",
        ),
        "has 4 layers, which 3 stages do not share evenly",
    ),
    "check_gpus": ((*GPU, "trainer.n_gpus_per_node=8"), "trainer.n_gpus_per_node=8"),
    "check_splits": (
        ("actor_rollout_ref.rollout.tensor_model_parallel_size=2",),
        "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
    ),
    "check_mini_batches": (
        ("actor_rollout_ref.actor.ppo_mini_batch_size=3",),
        "is no multiple of actor_rollout_ref.actor.ppo_mini_batch_size=3",
    ),
    "check_micro_batches": (
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100",),
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100",
    ),
    "check_groups": (
        (*FILTERED, "algorithm.filter_groups.max_inflight_gen_batches=0"),
        "nothing would be generated",
    ),
    "check_sampling": (
        ("actor_rollout_ref.rollout.temperature=0",),
        "the rollouts of a prompt would all be the same",
    ),
    "check_clips": (
        ("actor_rollout_ref.actor.clip_ratio_low=0.9",),
        "probabilities could fall further than they could rise",
    ),
    "check_engine_batches": (
        ("actor_rollout_ref.rollout.max_num_batched_tokens=8",),
        "actor_rollout_ref.rollout.max_num_batched_tokens=8 is below",
    ),
    "check_warmup": (("trainer.critic_warmup=1000",), "the actor would be trained"),
    "check_reward": (
        ("reward.custom_reward_function.path=/nowhere/reward.py",),
        "it could not be loaded",
    ),
    "check_score": (
        (*SERVED, "reward.custom_reward_function.path=null"),
        "reward.custom_reward_function.path=null: verl asks a served reward model without",
    ),
    "check_group_metric": (
        (*FILTERED, "algorithm.filter_groups.metric=scor"),
        "algorithm.filter_groups.metric=score",
    ),
    "check_perfect_reward": (("refiner.perfect_reward=-1",), "the reward goes up to 1"),
    "check_reward_model": (
        (*SERVED, "reward.reward_model.rollout.name=vllm", "refiner.perfect_reward=null"),
        "pkg://reward.apps asks no reward model",
    ),
    "check_reward_manager": (
        ("reward.reward_kwargs={overlong_buffer_cfg: {enable: true, len: 8}}",),
        "only verl's reward manager dapo",
    ),
    "check_reward_servers": (
        (*SERVED, "reward.reward_model.rollout.tensor_model_parallel_size=2"),
        "reward.reward_model.rollout.tensor_model_parallel_size=2",
    ),
    "check_reward_context": (
        (*SERVED, "reward.reward_model.rollout.max_model_len=100"),
        "its context of 100 tokens",
    ),
    "check_reward_settings": (
        (
            "reward.custom_reward_function.path=pkg://reward.dialogue",
            "reward.custom_reward_function.reward_kwargs={engine: vllm, model: m, scael: 2.0}",
        ),
        "did you mean scale?",
    ),
    "check_reward_rows": (
        ("reward.custom_reward_function.path=pkg://reward.dialogue",),
        "extra_info.conversation is missing",
    ),
    "check_reward_architecture": (
        (*SERVED, "reward.custom_reward_function.path=pkg://reward.dialogue"),
        "ForCausalLM, which gives no score",
    ),
    "check_refiner_rollout": (
        ("refiner.rollout={gpu_memory_utilisation: 0.3}",),
        "did you mean gpu_memory_utilization?",
    ),
    "check_places": (("trainer.resume_mode=resume_path",), "trainer.resume_from_path=None"),
    "check_node": (
        ("ray_kwargs.ray_init.object_store_memory=1000000000000000",),
        "/dev/shm has",
    ),
    "check_ray_resources": (
        ("ray_kwargs.ray_init.num_cpus=5",),
        "Fix: ray_kwargs.ray_init.num_cpus=6",
    ),
    "check_steps": (("trainer.total_training_steps=0",), "trainer.total_training_steps=0"),
    "check_registered": (
        ("actor_rollout_ref.actor.policy_loss.loss_mode=clip_conv",),
        "did you mean clip_cov?",
    ),
    "check_classes": (
        ("actor_rollout_ref.actor.optim.optimizer=adamw",),
        "Fix: actor_rollout_ref.actor.optim.optimizer=AdamW",
    ),
    "check_agent_loops": (
        ("actor_rollout_ref.rollout.agent.agent_loop_config_path=/nowhere.yaml",),
        "no such file. Fix: actor_rollout_ref.rollout.agent.agent_loop_config_path=null",
    ),
    "check_agent_manager": (
        ("actor_rollout_ref.rollout.agent.agent_loop_manager_class=mine.Manager",),
        "there is no module 'mine'",
    ),
    "check_queue": (
        ("transfer_queue.backend.SimpleStorage.total_storage_size=63",),
        "transfer_queue.backend.SimpleStorage.total_storage_size=63",
    ),
    "check_needed_keys": (
        ("actor_rollout_ref.actor.policy_loss.loss_mode=dro",),
        "actor_rollout_ref.actor.policy_loss.dro_beta=None",
    ),
    "check_older_keys": (
        ("custom_reward_function.path=mine.py",),
        "Fix: custom_reward_function.path=null, and reward.custom_reward_function.path in",
    ),
    "check_writers": (("actor_rollout_ref.model.path=<classifier>",), "which writes no text"),
    "check_memory": (
        (*GPU, "actor_rollout_ref.rollout.gpu_memory_utilization=0.6"),
        "while rollouts are made",
    ),
    "check_caches": (
        ("actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes=4096",),
        "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes=4096",
    ),
    "check_node_memory": (
        (*GPU, "machine.host_memory_gib=1"),
        "machine.host_memory_gib=1: a node would hold up to",
    ),
    "check_deadline": (
        (*GPU, "machine.gpu_bandwidth_gb_s=1", "refiner.deadline_s=1"),
        "refinements wait",
    ),
    "check_disk": (
        ("trainer.save_freq=1", "trainer.max_actor_ckpt_to_keep=999999999"),
        "trainer.max_actor_ckpt_to_keep=999999999",
    ),
}  # fmt: skip


def test_rewards_name_their_numbers_and_the_best_of_them() -> None:
    result = apps.as_dict(JudgeResult(Verdict.ACCEPTED, 2, 2, 0.1, 3, 1.0, ""))
    numbers = {key for key, value in result.items() if not isinstance(value, str)}
    assert set(apps.TRAITS.numbers) == numbers - {"score"}
    assert apps.TRAITS.best_score is not None
    assert apps.TRAITS.best_score({}) == 1.0
    assert apps.TRAITS.best_score({"accepted": 2}) == 2.0
    assert dialogue.TRAITS.best_score is None


def named(rule: Rule) -> str:
    return str(getattr(rule, "__name__", rule))


def test_every_rule_has_its_configuration() -> None:
    assert list(BROKEN) and sorted(BROKEN) == sorted(named(rule) for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_a_rule_names_what_breaks_it_and_is_silent_otherwise(composed: Compose, rule: Rule) -> None:
    overrides, words = BROKEN[named(rule)]
    faults = list(rule(resolve(composed(*overrides))))
    assert any(words in fault for fault in faults), faults
    assert all("Fix: " in fault or "built in: " in fault for fault in faults)
    assert list(rule(resolve(composed()))) == []


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_a_rule_says_in_its_first_line_what_must_hold(rule: Rule) -> None:
    assert (rule.__doc__ or "").strip(), f"{named(rule)} has no docstring"


def test_models_that_are_missing_are_read_once_and_named_by_each_key(
    composed: Compose, tmp_path: Path
) -> None:
    config = composed(f"actor_rollout_ref.model.path={tmp_path}")
    faults = [fault for rule in RULES for fault in rule(resolve(config))]
    unread = [fault for fault in faults if "its config.json could not be read" in fault]
    assert {fault.partition("=")[0] for fault in unread} == {
        "actor_rollout_ref.model.path",
        "refiner.model_path",
    }

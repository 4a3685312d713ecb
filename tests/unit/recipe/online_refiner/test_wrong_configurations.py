"""Configurations that an operator wrote and that cannot run: each refused, with its fix."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from config_copies import Original
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.preflight.rules import faults_of
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError

Compose = Callable[..., DictConfig]
Case = tuple[tuple[str, ...], str]

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
REWARD = "reward.custom_reward_function"
MODEL, CACHE = "actor_rollout_ref.model.path", "engine_kwargs.vllm.kv_cache_memory_bytes"
CRITIC = ("critic.enable=true", f"critic.model.path={ensure_checkpoint()}")
DIALOGUE = f"{REWARD}.path=pkg://reward.dialogue"
SERVED = ("reward.reward_model.enable=true", "reward.reward_model.enable_resource_pool=true",
          "reward.reward_model.nnodes=1", "reward.reward_model.n_gpus_per_node=1",
          "reward.reward_model.rollout.name=vllm", "refiner.perfect_reward=null",
          DIALOGUE)  # fmt: skip
ANOTHER = "refiner.source=model"

ON_ONE_MACHINE: list[Case] = [
    # Lengths of the servers and their caches.
    ((f"{ROLLOUT}.max_model_len=100",), f"{ROLLOUT}.max_model_len=null"),
    ((f"{ROLLOUT}.max_model_len=9000",), "the model's context has 8192 tokens"),
    ((f"{ROLLOUT}.{CACHE}=16384",), f"{ROLLOUT}.{CACHE}=16384: a cache of"),
    ((f"refiner.rollout.{CACHE}=16384",), f"refiner.rollout.{CACHE}=16384: a cache of"),
    ((MODEL + "=<short-context>", "data.max_response_length=4000"), "the model's context of 64"),
    # A prompt of -7233 tokens was once proposed.
    ((ANOTHER, "refiner.model_path=<short-context>"), "shorter data.max_response_length"),
    ((f"{ROLLOUT}.log_prob_max_token_len_per_gpu=100",), f"{ROLLOUT}.log_prob_max_token_len"),
    (("actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=100",), "ref.log_prob_max_token_len"),
    ((*CRITIC, "critic.ppo_infer_max_token_len_per_gpu=100"), "critic.ppo_infer_max_token_len"),
    ((f"{ROLLOUT}.log_prob_use_dynamic_bsz=false",), f"{ROLLOUT}.log_prob_use_dynamic_bsz=False"),
    # Values of a wrong type or out of range.
    (("trainer.nnodes=0",), "trainer.nnodes=0 is refused"),
    (("trainer.n_gpus_per_node=0",), "trainer.n_gpus_per_node=0 is refused"),
    ((f"{ACTOR}.ppo_mini_batch_size=0",), f"{ACTOR}.ppo_mini_batch_size=0 is refused"),
    ((f"{ROLLOUT}.tensor_model_parallel_size=0",), f"{ROLLOUT}.tensor_model_parallel_size=0"),
    ((f"{MODEL}=null",), f"{MODEL}=None is refused"),
    (("data.train_files=null",), "data.train_files=None is refused. Fix: set it to a path"),
    (("data.train_files=[]",), "data.train_files=[] is refused"),
    ((f"{ACTOR}.loss_agg_mode=token_mean",), f"{ACTOR}.loss_agg_mode='token_mean' is refused"),
    (("constraint.lambda=.inf",), "constraint.lambda=inf is refused"),
    (("constraint.lambda=.nan",), "constraint.lambda=nan is refused"),
    ((f"{ACTOR}.optim.lr=-1.0e-6",), f"{ACTOR}.optim.lr=-1e-06 is refused"),
    (("critic.optim.lr=.inf",), "critic.optim.lr=inf is refused"),
    ((f"{ACTOR}.optim.betas=[0.9]",), f"{ACTOR}.optim.betas=[0.9] is refused"),
    ((f"{ACTOR}.clip_ratio_c=0.5",), f"{ACTOR}.clip_ratio_c=0.5 is refused"),
    (("refiner.rollout.gpu_memory_utilization=1.5",), "refiner.rollout.gpu_memory_utilization=1.5"),
    ((f"{ROLLOUT}.n=two",), f"{ROLLOUT}.n='two' is refused"),
    (("data.train_batch_size=8.5",), "data.train_batch_size=8.5 is refused"),
    (("algorithm.gamma=1.2",), "algorithm.gamma=1.2 is refused"),
    (("data=null",), "data=None: it is a section of keys"),
    (("constraint=5",), "constraint=5: it is a section of keys"),
    (("refiner.rollout=ngram",), "refiner.rollout='ngram'"),
    # Names.
    ((f"{ROLLOUT}.name=vlm",), f"{ROLLOUT}.name='vlm': verl has none of this name. Fix: did you"),
    (("refiner.rollout.name=trtllm",), "refiner.rollout.name='trtllm'"),
    ((*SERVED, "reward.reward_model.rollout.name=vvlm"), "reward.reward_model.rollout.name='vvlm'"),
    (("trainer.logger=[console, wanb]",), "trainer.logger='wanb'"),
    ((f"{ACTOR}.strategy=fdsp2",), f"{ACTOR}.strategy='fdsp2'"),
    ((f"{ACTOR}.strategy=megatron",), "choose the group, strategy=megatron or megatron_tp8"),
    ((*CRITIC, "critic.strategy=megatron"), "strategy=fsdp2 or fsdp2_offload for both"),
    ((f"{ACTOR}.optim.learning_rate=1.0e-6",), f"~{ACTOR}.optim.learning_rate takes it away"),
    ((f"{ACTOR}.optim.weigth_decay=0.1",), "did you mean weight_decay?"),
    # What heads and sequences are cut into.
    ((f"{ROLLOUT}.tensor_model_parallel_size=8",), f"Fix: {ROLLOUT}.tensor_model_parallel_size=4"),
    (("refiner.rollout.tensor_model_parallel_size=8",), "4 attention heads, which 8 does not"),
    ((f"{ACTOR}.ulysses_sequence_parallel_size=8",), "attention heads, which 8 does not divide"),
    ((f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=2",), "model.use_remove_padding=True"),
    ((*CRITIC, "critic.ulysses_sequence_parallel_size=2"), "verl hands it to no engine"),
    # Models that read each other's tokens.
    ((ANOTHER, "refiner.model_path=<other-tokenizer>"), "2 tokens have other ids ('#' first)"),
    ((ANOTHER, "refiner.model_path=<small-vocabulary>"), "its embedding has 100 rows"),
    ((f"{MODEL}=<small-vocabulary>",), "the policy's tokenizer"),
    (("critic.enable=true", "critic.model.path=<small-vocabulary>"), "critic.model.path="),
    # The reward.
    (("reward.reward_model.enable_resource_pool=true",), "reserves 1 GPUs for a reward model"),
    ((*SERVED, "reward.reward_model.nnodes=0"), "reward.reward_model.nnodes=0: the reward model's"),
    ((*SERVED, "reward.reward_model.model_path=<7B>"), "Qwen2ForCausalLM, which gives no score"),
    ((*SERVED, "reward.reward_model.model_path=<two-labels>"), "its head has 2 labels"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vllm, model: m, scal: 2}}"), "mean scale?"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vllm, model: m, scale: 0}}"), "scale=0: use a"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vllm, model: m, scale: one}}"), "of type float"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vlm, model: m}}"), "engine='vlm': use one of"),
    ((DIALOGUE, f"{REWARD}.reward_kwargs={{engine: vllm}}"), "the function asks for model"),
    ((DIALOGUE,), "extra_info.conversation is missing"),
    ((f"{REWARD}.path=pkg://reward.math_dapo",), "ground_truth is JSON, no answer to a problem"),
    ((f"{REWARD}.name=compute_scores",), f"Fix: {REWARD}.name=compute_score"),
    # Prompts that leave nothing.
    (("data.filter_overlong_prompts=true", "data.max_prompt_length=2"), "leaves 0 prompts"),
    (("data.train_max_samples=4",), "data.train_max_samples=4 is below data.train_batch_size=8"),
    (("run.dir=/dev/null/runs",), "run.dir='/dev/null/runs'"),
]  # fmt: skip

LARGE = ("experiment=large_dapo_7b", "hardware=nodes8x80")
LARGEST = ("experiment=large_dapo_32b", "hardware=nodes8x80_32b")
PAPER = ("experiment=ppo_apps_dynamic", "hardware=gpu4x48")
MATH = ("experiment=dynamic_dapo_math_7b", "hardware=gpu8x80_long")
TENSOR, PIPELINE = "tensor_model_parallel_size", "pipeline_model_parallel_size"
ON_A_CLUSTER: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    # Pools and nodes.
    (LARGE, ("refiner.placement=pool", "refiner.pool.n_gpus_per_node=8"), "machine.nodes=3"),
    (LARGE, ("trainer.n_gpus_per_node=16",),
     "Fix: trainer.n_gpus_per_node=8 trainer.nnodes=4"),
    (LARGE, ("refiner.placement=pool", "refiner.pool.n_gpus_per_node=16"),
     "Fix: refiner.pool.n_gpus_per_node=8 refiner.pool.nnodes=2"),
    # Sixteen GPUs in all, and no node holds both parts.
    (LARGE, ("trainer.n_gpus_per_node=5", "refiner.placement=pool",
             "refiner.pool.n_gpus_per_node=6"), "machine.nodes=3"),
    (("experiment=dapo_apps", "hardware=gpu4x48_reward_model"), (),
     "a hardware group without _reward_model"),
    # Cuts of the model.
    (LARGE, (f"{ACTOR}.megatron.{TENSOR}=8",), "has 28 attention heads, which 8 does not divide"),
    (LARGE, (f"{ACTOR}.megatron.{PIPELINE}=8",), "has 28 layers, which 8 stages"),
    (LARGEST, (f"{ACTOR}.megatron.{PIPELINE}=3",), "has 64 layers, which 3 stages"),
    # Megatron's factor on tokens is the context's alone, not 2 × 1 × 1 GPUs'.
    (LARGE, (f"{ACTOR}.ppo_max_token_len_per_gpu=4096",),
     f"{ACTOR}.ppo_max_token_len_per_gpu=4096: one row"),
    # Keys of another strategy.
    (("experiment=dapo_apps", "hardware=nodes8x80"), (),
     f"~{ACTOR}.optim.lr_scheduler_type takes it away; under Megatron set {ACTOR}.optim.lr_decay"),
    (LARGE, (f"{ACTOR}.optim.min_lr_ratio=0.1",), f"{ACTOR}.optim.min_lr (a learning rate"),
    # Long responses.
    (MATH, (f"{ACTOR}.ulysses_sequence_parallel_size=8",), "has 28 attention heads, which 8 does"),
    (MATH, (f"{ACTOR}.ulysses_sequence_parallel_size=1",), "one row of prompt and response has up"),
    (MATH, ("refiner.template=math-v1",), "math-blocks-v1, or a file of your own with it"),
    (MATH, ("refiner.block_tokens=null",), "{before}, which would stand empty"),
    (MATH, ("data.max_response_length=2048",), "overlong_buffer_cfg.len=4096: the penalty would"),
    (MATH, ("data.gen_batch_size=1536",), "data.gen_batch_size=1536: with"),
    # Memory: fixes are those of the strategy.
    (LARGEST, ("machine.gpu_memory_gib=30",), f"a larger {ACTOR}.megatron.{TENSOR}"),
    (("experiment=large_dapo_32b", "hardware=nodes8x80_32b", "strategy=fsdp2_offload"),
     ("trainer.nnodes=2",), "Fix: lower it (and the critic's), strategy=megatron_tp8, or more"),
    (LARGEST, ("trainer.nnodes=1", "machine.nodes=1", "machine.host_memory_gib=200"),
     "machine.host_memory_gib=200: a node would hold"),
    (LARGEST, ("refiner.deadline_s=120",), "refiner.deadline_s=120: by the estimate refinements"),
    (PAPER, (f"{ROLLOUT}.max_model_len=32768", f"{ROLLOUT}.gpu_memory_utilization=0.12"),
     "tokens, under one sequence of 32768"),
]  # fmt: skip


def refused(config: DictConfig) -> list[str]:
    try:
        return faults_of(resolve(config))
    except ConfigError as error:
        return str(error).splitlines()


def test_there_are_at_least_sixty() -> None:
    assert len({case[:-1] for case in (*ON_ONE_MACHINE, *ON_A_CLUSTER)}) >= 60


@pytest.mark.parametrize(("changes", "words"), ON_ONE_MACHINE, ids=lambda value: str(value)[-60:])
def test_on_one_machine(composed: Compose, changes: tuple[str, ...], words: str) -> None:
    faults = refused(composed(*changes))
    assert any(words in fault for fault in faults), faults
    assert all("Fix: " in fault or ": use " in fault or "; use " in fault for fault in faults)


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
    config = on_cluster(*groups)
    config.data.train_files = config.data.val_files = str(parquet)
    size = next(size for size in ("32B", "7B", "1.5B") if size in config[
        "actor_rollout_ref"]["model"]["path"] or size == "1.5B")  # fmt: skip
    config.actor_rollout_ref.model.path = folders[f"<{size}>"]
    for change in changes:
        key, _, value = change.partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
    faults = refused(config)
    assert any(words in fault for fault in faults), faults


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

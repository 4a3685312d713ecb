"""What the preflight refuses beyond `checks.py`: pure functions of the composed config.

Each yields sentences that name the key, its value and the fix.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.constraint_checks import constraint_warnings
from recipe.online_refiner.refiner_engine import refiner_rollout
from recipe.online_refiner.reward_checks import check_reward_context, check_reward_servers
from recipe.online_refiner.settings import Settings
from refiner_worker.engine import REPLICA_SPLITS, replica_gpus
from reward.config import JudgeConfig, JudgeConfigError

JUDGE_PATH = "pkg://reward.apps"
ENGINE_PACKAGES = {"vllm": "vllm", "sglang": "sglang"}

Rule = Callable[[DictConfig, Settings], Iterator[str]]


def trainer_gpus(config: DictConfig) -> int:
    """GPUs of the pool in which the actor trains."""
    return int(config.trainer.n_gpus_per_node) * int(config.trainer.nnodes)


def pools(config: DictConfig, settings: Settings) -> dict[str, int]:
    """GPUs of each pool by name, in verl's and our names."""
    found = {"global_pool": trainer_gpus(config)}
    reward_model = config.reward.reward_model
    if reward_model.enable and reward_model.enable_resource_pool:
        found["reward_pool"] = int(reward_model.n_gpus_per_node) * int(reward_model.nnodes)
    if settings.refines and settings.refiner.placement == "pool":
        pool = settings.refiner.pool
        found["refiner_pool"] = pool.n_gpus_per_node * pool.nnodes
    return found


def has_critic(config: DictConfig) -> bool:
    """As verl decides it."""
    if config.critic.enable is not None:
        return bool(config.critic.enable)
    return str(config.algorithm.adv_estimator).removeprefix("refined_") == "gae"


def is_megatron(config: DictConfig) -> bool:
    """Whether the actor trains under Megatron-Core."""
    return config.actor_rollout_ref.actor.strategy == "megatron"


def split_of(config: DictConfig) -> int:
    """GPUs that share one copy of the actor's work: they see the same rows."""
    actor = config.actor_rollout_ref.actor
    if is_megatron(config):
        section = actor.megatron
        return int(
            section.tensor_model_parallel_size
            * section.pipeline_model_parallel_size
            * section.context_parallel_size
        )
    return int(actor.get("ulysses_sequence_parallel_size") or 1)


def check_gpus(config: DictConfig, settings: Settings) -> Iterator[str]:
    machine = config.get("machine")
    if machine is None or config.trainer.device == "cpu":
        return
    wanted = pools(config, settings)
    there = int(machine.gpus_per_node) * int(machine.nodes)
    if sum(wanted.values()) > there:
        named = ", ".join(f"{name} {count}" for name, count in wanted.items())
        yield (
            f"trainer.n_gpus_per_node={config.trainer.n_gpus_per_node}: the pools want "
            f"{sum(wanted.values())} GPUs ({named}), and the machine has {there}. Fix: lower it, "
            "or take a hardware=*_reward_model group where a reward model is served"
        )


def check_splits(config: DictConfig, settings: Settings) -> Iterator[str]:
    gpus, split = trainer_gpus(config), split_of(config)
    if gpus % split:
        key = (
            "actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
            if is_megatron(config)
            else "actor_rollout_ref.actor.ulysses_sequence_parallel_size"
        )
        yield (
            f"{key}: {split} GPUs share one copy of the actor, which does not divide the "
            f"trainer's {gpus}. Fix: a divisor of {gpus}, or trainer.nnodes={split}"
        )
    yield from _check_replica(
        "actor_rollout_ref.rollout", config.actor_rollout_ref.rollout, gpus, "the trainer"
    )
    if settings.has_refiner_servers:
        of = pools(config, settings)
        pool = of.get("refiner_pool", of["global_pool"])
        rollout = refiner_rollout(config, settings, *REPLICA_SPLITS)
        yield from _check_replica("refiner.rollout", rollout, pool, "the refiner's pool")


def _check_replica(key: str, rollout: Any, gpus: int, whose: str) -> Iterator[str]:
    size = replica_gpus(rollout)
    if gpus % size:
        yield (
            f"{key}.tensor_model_parallel_size={rollout.tensor_model_parallel_size}: a server of "
            f"{size} GPUs does not divide the {gpus} of {whose}. Fix: {key}."
            f"tensor_model_parallel_size=1, or a divisor of {gpus}"
        )


def check_mini_batches(config: DictConfig, settings: Settings) -> Iterator[str]:
    """verl asserts, at the first update, that a mini-batch's rows can be shared out evenly."""
    if trainer_gpus(config) % split_of(config):
        return
    ranks = trainer_gpus(config) // split_of(config)
    sections = {"actor_rollout_ref.actor": config.actor_rollout_ref.actor}
    if has_critic(config):
        sections["critic"] = config.critic
    for key, section in sections.items():
        rows = section.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
        if rows % ranks:
            yield (
                f"{key}.ppo_mini_batch_size={section.ppo_mini_batch_size}: {rows} rows cannot be "
                f"shared out evenly among {ranks} ranks. Fix: a multiple of {ranks}, or "
                "trainer.n_gpus_per_node that divides it"
            )
        if config.data.train_batch_size % section.ppo_mini_batch_size:
            yield (
                f"data.train_batch_size={config.data.train_batch_size} is no multiple of {key}."
                f"ppo_mini_batch_size={section.ppo_mini_batch_size}: verl would fill each batch up "
                "with padding rows. Fix: make it one"
            )


def check_micro_batches(config: DictConfig, settings: Settings) -> Iterator[str]:
    actor = config.actor_rollout_ref.actor
    longest = config.data.max_prompt_length + config.data.max_response_length
    if not actor.use_dynamic_bsz:
        if actor.ppo_micro_batch_size_per_gpu is None and actor.ppo_micro_batch_size is None:
            yield (
                "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=null: no size of "
                "micro-batches. Fix: actor_rollout_ref.actor.use_dynamic_bsz=true, or a number"
            )
        return
    lengths = {"actor_rollout_ref.actor.ppo_max_token_len_per_gpu": actor.ppo_max_token_len_per_gpu}
    if has_critic(config):
        lengths["critic.ppo_max_token_len_per_gpu"] = config.critic.ppo_max_token_len_per_gpu
    for key, tokens in lengths.items():
        if tokens * split_of(config) < longest:
            yield (
                f"{key}={tokens}: one row of prompt and response has up to {longest} tokens. "
                f"Fix: {key}={longest} or more, or shorter data.max_response_length"
            )


def check_groups(config: DictConfig, settings: Settings) -> Iterator[str]:
    estimator = str(config.algorithm.adv_estimator).removeprefix("refined_")
    rollouts = config.actor_rollout_ref.rollout.n
    if estimator == "grpo" and rollouts < 2:
        yield (
            f"actor_rollout_ref.rollout.n={rollouts}: the advantage of a group of one is zero. "
            "Fix: actor_rollout_ref.rollout.n=8, or algorithm.adv_estimator=gae"
        )
    groups = config.algorithm.filter_groups
    if not groups.enable:
        return
    if rollouts < 2:
        yield (
            f"algorithm.filter_groups.enable=True with actor_rollout_ref.rollout.n={rollouts}: "
            "every group has equal rewards and would be replaced for ever. Fix: "
            "algorithm.filter_groups.enable=False"
        )
    if groups.max_num_gen_batches > 0:
        yield (
            f"algorithm.filter_groups.max_num_gen_batches={groups.max_num_gen_batches}: verl "
            "ignores it. Fix: set it to 0; max_inflight_gen_batches bounds what is under way"
        )
    if config.data.gen_batch_size not in (None, 1):
        yield (
            f"data.gen_batch_size={config.data.gen_batch_size}: with "
            "algorithm.filter_groups.enable verl takes 1. Fix: data.gen_batch_size=null"
        )
    if groups.max_inflight_gen_batches < 1:
        yield (
            f"algorithm.filter_groups.max_inflight_gen_batches={groups.max_inflight_gen_batches}: "
            "nothing would be generated. Fix: 1 or more"
        )
    reward_model = config.reward.reward_model
    if reward_model.enable and not reward_model.enable_resource_pool:
        yield (
            "reward.reward_model.enable_resource_pool=False: groups are filtered while rollouts "
            "are made, and a reward model on the policy's GPUs scores after them. Fix: "
            "reward.reward_model.enable_resource_pool=True with GPUs of its own"
        )


def check_reward(config: DictConfig, settings: Settings) -> Iterator[str]:
    function = config.reward.custom_reward_function
    if function.path is None:
        return
    if not _can_be_imported(function.path):
        yield (
            f"reward.custom_reward_function.path={function.path!r}: no such module or file. Fix: "
            "pkg://reward.apps for code, or the path of a .py file"
        )
    if function.path == JUDGE_PATH:
        try:
            JudgeConfig.from_mapping(judge_keys(config))
        except (JudgeConfigError, TypeError) as error:
            yield f"reward.custom_reward_function.reward_kwargs: {error}"
        if config.reward.reward_model.enable:
            yield (
                "reward.reward_model.enable=True: the judge of programs asks no reward model. Fix: "
                "reward.reward_model.enable=False"
            )
    if config.reward.reward_model.enable and settings.refiner.perfect_reward is not None:
        yield (
            f"refiner.perfect_reward={settings.refiner.perfect_reward}: a learned reward has no "
            "maximum at which refining could be spared. Fix: refiner.perfect_reward=null"
        )
    if config.reward.reward_model.enable and OmegaConf.is_missing(
        config.reward.reward_model.rollout, "name"
    ):
        yield (
            "reward.reward_model.rollout.name=???: no engine serves the reward model. Fix: "
            "reward.reward_model.rollout.name=vllm or sglang"
        )
    overlong = OmegaConf.select(config, "reward.reward_kwargs.overlong_buffer_cfg.enable")
    if overlong and config.reward.reward_manager.name != "dapo":
        yield (
            "reward.reward_kwargs.overlong_buffer_cfg.enable=True: only verl's reward manager dapo "
            f"reads it, and reward.reward_manager.name={config.reward.reward_manager.name}. Fix: "
            "reward.reward_manager.name=dapo"
        )


def judge_keys(config: DictConfig) -> dict[str, Any]:
    """The judge's settings of this run."""
    section = config.reward.custom_reward_function.get("reward_kwargs") or {}
    keys = OmegaConf.to_container(OmegaConf.create(section), resolve=True)
    return {str(key): value for key, value in keys.items()} if isinstance(keys, dict) else {}


def _can_be_imported(path: str) -> bool:
    if not path.startswith("pkg://"):
        return Path(path).is_file()
    try:
        return importlib.util.find_spec(path.removeprefix("pkg://")) is not None
    except ModuleNotFoundError:
        return False


def check_refiner_rollout(config: DictConfig, settings: Settings) -> Iterator[str]:
    known = list(config.actor_rollout_ref.rollout)
    for key in settings.refiner.rollout:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            fix = f"did you mean {near[0]}?" if near else "a key of verl's rollout config"
            yield f"refiner.rollout.{key}: verl's rollout config has no such key. Fix: {fix}"


def check_places(config: DictConfig, settings: Settings) -> Iterator[str]:
    """A job of Ray's runs in a copy of the working directory that is deleted with the cluster."""
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") and not os.path.isabs(settings.run.dir):
        yield (
            f"run.dir={settings.run.dir!r}: a Ray job runs in a temporary copy of the working "
            "directory, where checkpoints would be lost. Fix: an absolute path on storage that "
            "all nodes share (ONLINE_REFINER_RUNS, or run.dir)"
        )
    if config.trainer.resume_mode == "resume_path":
        path = config.trainer.resume_from_path
        if path is None or "global_step_" not in path or not Path(path).is_dir():
            yield (
                f"trainer.resume_from_path={path!r}: no folder …/global_step_N is there. Fix: name "
                "one, or trainer.resume_mode=auto for the last one of run.dir"
            )


def check_steps(config: DictConfig, settings: Settings) -> Iterator[str]:
    for key in ("total_epochs", "total_training_steps"):
        value = config.trainer[key]
        if value is not None and value < 1:
            yield f"trainer.{key}={value}: nothing would be trained. Fix: 1 or more"


RULES: tuple[Rule, ...] = (
    check_gpus,
    check_splits,
    check_mini_batches,
    check_micro_batches,
    check_groups,
    check_reward,
    check_reward_servers,
    check_reward_context,
    check_refiner_rollout,
    check_places,
    check_steps,
)


def warnings_on(config: DictConfig, settings: Settings) -> Iterator[str]:
    """What will run, and may surprise."""
    yield from constraint_warnings(config, settings)
    if config.trainer.save_freq <= 0:
        yield (
            f"trainer.save_freq={config.trainer.save_freq}: nothing is saved, and a run that is "
            "interrupted starts again"
        )
    if config.trainer.device != "cpu":
        for name, package in _packages(config).items():
            if importlib.util.find_spec(package) is None:
                yield f"{name}: the package {package} is not installed in this environment"
    train, held_out = config.data.train_files, config.data.val_files
    if train == held_out:
        yield f"data.val_files={held_out!r} is what is trained on"


def _packages(config: DictConfig) -> dict[str, str]:
    engine = config.actor_rollout_ref.rollout.name
    wanted = {f"actor_rollout_ref.rollout.name={engine}": ENGINE_PACKAGES.get(engine, engine)}
    if is_megatron(config):
        wanted["actor_rollout_ref.actor.strategy=megatron"] = "megatron"
    return wanted

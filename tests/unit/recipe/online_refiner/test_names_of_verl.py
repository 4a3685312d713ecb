"""The names that the preflight knows are those that verl 0.9.1 knows."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
import torch
import transfer_queue
import verl
from omegaconf import OmegaConf
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER
from verl.single_controller.ray.base import ResourcePoolManager
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY, kl_penalty
from verl.trainer.ppo.rollout_corr_helper import SUPPORTED_ROLLOUT_RS_OPTIONS
from verl.trainer.ppo.v1 import trainer_base
from verl.utils.tracking import Tracking
from verl.workers.config import CriticConfig, FSDPActorConfig, FSDPCriticConfig
from verl.workers.config.optimizer import FSDPOptimizerConfig, McoreOptimizerConfig
from verl.workers.rollout.replica import RolloutReplicaRegistry

from recipe.online_refiner.choices import ESTIMATORS
from recipe.online_refiner.preflight.name_rules import ENGINES, LOGGERS, OPTIMIZER_KEYS
from recipe.online_refiner.preflight.node_rules import CPUS_A_GPU
from recipe.online_refiner.preflight.registry_rules import (
    AGENT_LOOPS,
    ATTENTIONS,
    KL_ESTIMATES,
    NEW_PLACES,
    POLICY_LOSSES,
    QUEUE_STORES,
    REGISTRIES,
    REWARD_MANAGERS,
    UNSERVED_ESTIMATORS,
    WEIGHT_TRANSPORTS,
)
from recipe.online_refiner.resolve.verl_keys import CRITIC_PACKING, REJECTIONS, LossMode


@pytest.mark.parametrize(
    ("family", "verls"), [("fsdp", FSDPOptimizerConfig), ("megatron", McoreOptimizerConfig)]
)
def test_an_optimizers_keys_are_the_fields_of_its_class(family: str, verls: type) -> None:
    fields = {field.name for field in dataclasses.fields(verls)}
    assert set(OPTIMIZER_KEYS[family]) - {"_target_"} == fields - {"_mutable_fields", "_target_"}


def test_loggers_are_verls_trackers() -> None:
    assert set(LOGGERS) == {*Tracking.supported_backend, "tracking"}


def test_losses_of_the_policy_are_those_that_verl_registers() -> None:
    ours = {name for name in POLICY_LOSS_REGISTRY
            if POLICY_LOSS_REGISTRY[name].__module__.startswith("verl.")}  # fmt: skip
    assert set(POLICY_LOSSES) == ours


def _of_verl(registry: Mapping[str, type]) -> set[str]:
    return {name for name, one in registry.items() if one.__module__.startswith("verl.")}


def test_estimators_are_those_that_verl_registers() -> None:
    registered = {getattr(name, "value", name) for name in ADV_ESTIMATOR_REGISTRY}
    assert set(ESTIMATORS) == registered


def test_what_an_unserved_estimator_reads_is_not_among_what_verl_fetches() -> None:
    source = inspect.getsource(trainer_base.PPOTrainer._compute_advantage)
    (fields,) = re.findall(r"fields = \[(.*)\]\n\s+data = tq", source)
    assert "old_log_probs" in fields
    reads = ("reward_baselines", "sum_pi_squared", "prompts")
    assert not any(f'"{name}"' in fields for name in reads)
    assert set(UNSERVED_ESTIMATORS) < set(ESTIMATORS)


@pytest.mark.parametrize("name", KL_ESTIMATES)
def test_verl_estimates_a_kl_by_each_name(name: str) -> None:
    ones = torch.ones(2)
    assert kl_penalty(ones, ones, name).tolist() == [0, 0]


def test_rejections_are_those_that_verl_supports() -> None:
    assert set(REJECTIONS) == SUPPORTED_ROLLOUT_RS_OPTIONS


def test_reward_managers_and_agent_loops_are_those_that_verl_registers() -> None:
    assert set(REWARD_MANAGERS) == _of_verl(REWARD_MANAGER)
    targets = {name: one["_target_"] for name, one in _agent_loop_registry.items()}
    assert set(AGENT_LOOPS) == {name for name in targets if targets[name].startswith("verl.")}


@pytest.mark.parametrize(
    ("package", "folder", "names"),
    [
        (verl, "checkpoint_engine", WEIGHT_TRANSPORTS),
        (transfer_queue, "storage/managers", QUEUE_STORES),
    ],
)
def test_modules_that_need_other_packages_register_these(
    package: object, folder: str, names: tuple[str, ...]
) -> None:
    root = Path(str(getattr(package, "__file__", ""))).parent / folder
    text = "".join(path.read_text() for path in root.glob("*.py"))
    found = re.findall(r'^@(?:CheckpointEngineRegistry|StorageManagerFactory)\.register\("(\w+)"',
                       text, re.MULTILINE)  # fmt: skip
    assert set(names) == set(found)


def test_kinds_of_attention_are_those_of_transformers() -> None:
    assert set(ATTENTIONS) == {"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()}


def test_registered_names_and_older_sections_are_keys_of_verls_config() -> None:
    config = OmegaConf.load(
        Path(verl.__file__).parent / "trainer/config/_generated_ppo_trainer.yaml"
    )
    for key in REGISTRIES:
        assert OmegaConf.select(config, key) in REGISTRIES[key].known
    moved = set(NEW_PLACES) - {"reward_model.reward_kwargs"}
    absent = object()
    assert all(OmegaConf.select(config, key, default=absent) is not absent for key in moved)
    new = set(NEW_PLACES.values()) - {"reward.reward_kwargs"}
    assert all(OmegaConf.select(config, key, default=absent) is not absent for key in new)


def test_a_pool_of_verls_reserves_so_many_processors_with_a_gpu() -> None:
    (field,) = [one for one in dataclasses.fields(ResourcePoolManager)
                if one.name == "max_colocate_count"]  # fmt: skip
    assert field.default == CPUS_A_GPU


def test_engines_are_verls_replicas() -> None:
    assert set(ENGINES) == set(RolloutReplicaRegistry._registry)


@pytest.mark.parametrize("mode", get_args(LossMode))
def test_verl_averages_losses_in_these_ways(mode: str) -> None:
    made = FSDPActorConfig(rollout_n=1, use_dynamic_bsz=True, loss_agg_mode=mode)
    assert made.loss_agg_mode == mode


def test_the_critics_packing_is_a_field_that_its_yaml_lacks() -> None:
    assert CRITIC_PACKING in {field.name for field in dataclasses.fields(CriticConfig)}
    assert f"critic_cfg.{CRITIC_PACKING}" in _source(trainer_base)


def test_verl_hands_a_critics_sequence_split_to_no_engine() -> None:
    """`check_splits` says so; the actor's is handed on."""
    made = FSDPCriticConfig(ulysses_sequence_parallel_size=2, use_dynamic_bsz=True)
    assert made.engine.ulysses_sequence_parallel_size == 1
    actor = FSDPActorConfig(rollout_n=1, use_dynamic_bsz=True, ulysses_sequence_parallel_size=2)
    assert actor.engine.ulysses_sequence_parallel_size == 2


def _source(module: object) -> str:
    path = getattr(module, "__file__", None)
    assert isinstance(path, str)
    with open(path) as file:
        return file.read()

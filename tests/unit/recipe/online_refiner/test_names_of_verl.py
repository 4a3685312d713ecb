"""The names that the preflight knows are those that verl 0.9.1 knows."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
from verl.single_controller.ray.base import ResourcePoolManager
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.trainer.ppo.v1 import trainer_base
from verl.utils.tracking import Tracking
from verl.workers.config import CriticConfig, FSDPActorConfig, FSDPCriticConfig
from verl.workers.config.optimizer import FSDPOptimizerConfig, McoreOptimizerConfig
from verl.workers.rollout.replica import RolloutReplicaRegistry

from recipe.online_refiner.preflight.name_rules import (
    ENGINES,
    LOGGERS,
    OPTIMIZER_KEYS,
    POLICY_LOSSES,
)
from recipe.online_refiner.preflight.node_rules import CPUS_A_GPU
from recipe.online_refiner.resolve.verl_keys import CRITIC_PACKING, LossMode


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

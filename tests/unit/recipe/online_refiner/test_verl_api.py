"""Every name of verl that we call or override and that verl does not promise to keep.

A new verl that changes one fails here, by name, before it fails in the middle of a training.
ARCHITECTURE.md lists the same names.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from recipe.online_refiner.choices import ESTIMATORS
from recipe.online_refiner.modes import TRAINERS
from recipe.online_refiner.trainer import OnlineRefinerTrainer

SIGNATURES = {
    "verl.experimental.agent_loop.agent_loop:AgentLoopManager._init_agent_loop_workers": "self",
    "verl.experimental.agent_loop.agent_loop:AgentLoopWorker._compute_score": (
        "self, outputs, kwargs"
    ),
    "verl.single_controller.base.worker:Worker._query_dispatch_info": "self, mesh_name",
    "verl.single_controller.ray.base:split_resource_pool": "resource_pool, split_size",
    "verl.trainer.main_ppo:TaskRunnerV1.init_agent_loop_manager": "self",
    "verl.trainer.main_ppo:TaskRunnerV1.run": "self, config",
    "verl.trainer.main_ppo:run_ppo": "config, task_runner_class",
    "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ._agent_loop_postprocess": (
        "self, output, validate, kwargs"
    ),
    "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer._clear_groups": "self, partition_id, uids",
    "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer._dapo_filtered_keys": "self, partition_id",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._build_replay_buffer": "self",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_advantage": "self, batch, metrics",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_old_log_prob": "self, batch, metrics",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_ref_log_prob": "self, batch, metrics",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_values": "self, batch, metrics",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._init_resource_pool_mgr": "self",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._load_checkpoint": "self",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._save_checkpoint": "self",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._setup": "self",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._update_actor": "self, batch, metrics",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer.step": "self, metrics, timing_raw",
    "verl.trainer.ppo.v1.trainer_colocate_async:PPOTrainerColocateAsync.on_sample_end": "self",
    "verl.trainer.ppo.v1.trainer_colocate_async:PPOTrainerColocateAsync.on_step_end": "self",
    "verl.trainer.ppo.v1.trainer_separate_async:PPOTrainerSeparateAsync.on_sample_end": "self",
    "verl.trainer.ppo.v1.trainer_separate_async:PPOTrainerSeparateAsync.on_step_begin": "self",
    "verl.trainer.ppo.v1.trainer_separate_async:PPOTrainerSeparateAsync.on_step_end": "self",
    "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_init_end": "self",
    "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_sample_end": "self",
    "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_step_end": "self",
    "verl.utils.tensordict_utils:get_non_tensor_data": "data, key, default",
    "verl.utils.tensordict_utils:get_tensordict": "tensor_dict, non_tensor_dict",
    "verl.utils.tensordict_utils:list_of_dict_to_tensordict": "list_of_dicts",
    "verl.utils.ulysses:get_ulysses_sequence_parallel_world_size": "group",
    "verl.utils.ulysses:slice_input_tensor": "x, dim, padding, group",
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.prepare_model_outputs": (
        "self, output, output_args, micro_batch, logits_processor_func"
    ),
    "verl.workers.engine_workers:ActorRolloutRefWorker.compute_log_prob": "self, data",
    "verl.workers.engine_workers:ActorRolloutRefWorker.set_loss_fn": "self, loss_fn",
    "verl.workers.engine_workers:ActorRolloutRefWorker.update_actor": "self, data",
    "verl.workers.rollout.llm_server:LLMServerClient.__init__": (
        "self, config, load_balancer_handle, kwargs"
    ),
    "verl.workers.rollout.llm_server:FullyAsyncLLMServerClient.__init__": (
        "self, config, load_balancer_handle, only_hybrid, kwargs"
    ),
    "verl.workers.rollout.replica:RolloutReplica.__init__": (
        "self, replica_rank, config, model_config, gpus_per_node, is_reward_model, "
        "is_teacher_model, name_suffix"
    ),
    "verl.workers.rollout.replica:RolloutReplica.abort_all_requests": "self, reject_request",
    "verl.workers.rollout.replica:RolloutReplica.resume_generation": "self",
    "verl.workers.rollout.replica:RolloutReplica.init_colocated": "self, resource_pool",
    "verl.workers.rollout.replica:RolloutReplica.sleep": "self",
    "verl.workers.rollout.replica:RolloutReplica.wake_up": "self",
    "verl.workers.rollout.replica:get_rollout_replica_class": "rollout, disaggregation_enabled",
    "verl.workers.rollout.replica:RolloutReplicaRegistry.register": "name, loader",
    "verl.workers.rollout.router:GlobalRequestLoadBalancer.add_servers": "self, servers",
    "verl.workers.rollout.router:GlobalRequestLoadBalancer.get_total_inflight": "self",
    "verl.workers.rollout.router:GlobalRequestLoadBalancer.remove_servers": "self, server_ids",
    "verl.workers.rollout.router:get_router_handle": (
        "servers, router_config_path, full_determinism, load_balancer_cls"
    ),
    "verl.workers.utils.losses:ppo_loss": "config, model_output, data, dp_group",
    "verl.workers.utils.padding:response_from_nested": "tensor, response_mask",
    "verl.workers.utils.padding:response_to_nested": "tensor, response_mask",
}

RAY_TRACING = "_ray_trace_ctx"
"""A parameter that Ray adds to every method of an actor class."""

ATTRIBUTES = {
    "verl.trainer.ppo.v1.trainer_base:TRAINER_REGISTRY": dict,
}


def resolve(name: str) -> Any:
    """The object of `module:attribute.path`, looking through Ray's actor classes."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(getattr(found, "__ray_actor_class__", found), part)
    return found


@pytest.mark.parametrize(("name", "parameters"), SIGNATURES.items())
def test_signature_is_the_one_that_we_call_or_override(name: str, parameters: str) -> None:
    found = [p for p in inspect.signature(resolve(name)).parameters if p != RAY_TRACING]
    assert ", ".join(found) == parameters


@pytest.mark.parametrize(("name", "kind"), ATTRIBUTES.items())
def test_attribute_is_of_the_kind_that_we_use(name: str, kind: type) -> None:
    assert isinstance(resolve(name), kind)


def test_the_estimators_that_the_preflight_knows_are_verls() -> None:
    estimators = resolve("verl.trainer.ppo.core_algos:AdvantageEstimator")
    assert sorted(ESTIMATORS) == sorted(one.value for one in estimators)


def test_verls_trainers_are_registered_under_the_names_that_we_replace() -> None:
    for name in ("trainer_sync", "trainer_colocate_async", "trainer_separate_async"):
        importlib.import_module(f"verl.trainer.ppo.v1.{name}")
    registry = resolve("verl.trainer.ppo.v1.trainer_base:TRAINER_REGISTRY")
    assert {name: registry[name].__name__ for name in TRAINERS} == {
        "sync": "PPOTrainerSync",
        "colocate_async": "PPOTrainerColocateAsync",
        "separate_async": "PPOTrainerSeparateAsync",
    }


@pytest.mark.parametrize("mode", TRAINERS)
def test_our_hooks_come_before_verls_in_each_mode(mode: str) -> None:
    ours = TRAINERS[mode]
    assert ours.__mro__[1] is OnlineRefinerTrainer
    assert not inspect.isabstract(ours)
    for hook in ("on_init_end", "on_step_begin", "on_step_end", "on_sample_end", "step"):
        assert getattr(ours, hook) is getattr(OnlineRefinerTrainer, hook)


def test_architecture_names_every_private_name_that_is_touched(repo_root: Path) -> None:
    text = (repo_root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    missing = [name for name in (*SIGNATURES, *ATTRIBUTES) if name.partition(":")[2] not in text]
    assert missing == []

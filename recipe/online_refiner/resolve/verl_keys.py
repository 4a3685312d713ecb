"""The keys of verl and of Ray that this project sets or reads, each with its type and range.

`key_faults.py` holds a config against them. Our own sections are typed in `settings.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from recipe.online_refiner.settings import (
    MOST_COEFFICIENT,
    MOST_NODE_GPUS,
    MOST_NODES,
    MOST_TEMPERATURE,
    MOST_TOKENS,
)

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
# Bounded above if a slip of the keyboard would start processes or reserve memory (ours).
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Samples = Annotated[int, Field(ge=1, le=4096)]
Workers = Annotated[int, Field(ge=1, le=1024)]
Parts = Annotated[int, Field(ge=1, le=MOST_NODES)]
Nodes = Annotated[int, Field(ge=1, le=MOST_NODES)]
NodeGpus = Annotated[int, Field(ge=1, le=MOST_NODE_GPUS)]
Prompts = Annotated[int, Field(ge=1, le=1 << 24)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Temperature = Annotated[float, Field(ge=0, le=MOST_TEMPERATURE)]
LearningRate = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Device = Literal["cuda", "cpu", "npu", "xpu"]
Precision = Literal["auto", "half", "float16", "bfloat16", "float", "float32"]
EngineType = Literal["fp16", "float16", "bf16", "bfloat16", "fp32", "float32", 16, 32, "16", "32"]
"""verl's names of a type for FSDP, which it looks up once the model is made."""
TypeOf = Literal["param_dtype", "reduce_dtype", "buffer_dtype"]
SavedPart = Literal["model", "optimizer", "extra", "hf_model"]
"""What verl saves of a model; it saves nothing of what has another name."""
TopK = Annotated[int, Field(ge=-1)]
Entropy = Annotated[float, Field(ge=-10, le=10)]
PenaltyFactor = Annotated[float, Field(ge=0, le=MOST_COEFFICIENT)]
Share = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Bandwidth = Annotated[float, Field(ge=1, le=1e6)]
ObjectStore = Annotated[int, Field(ge=75 << 20)]
"""Ray refuses to start with less."""
Betas = Annotated[list[Decay], Field(min_length=2, max_length=2)]
LossMode = Literal[
    "token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean",
    "seq-mean-token-sum-norm",
]  # fmt: skip
REJECTIONS = (
    *("token_k1", "token_k2", "token_k3", "seq_sum_k1", "seq_sum_k2", "seq_sum_k3"),
    *("seq_mean_k1", "seq_mean_k2", "seq_mean_k3", "seq_max_k2", "seq_max_k3"),
)
"""By what verl's correction of rollouts rejects tokens or rows."""


def _paths(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list) and names and all(isinstance(n, str) and n for n in names)):
        raise ValueError("a path, or a list of paths")
    return value


def _names(value: Any) -> Any:
    try:
        return _paths(value)
    except ValueError:
        raise ValueError("a name, or a list of names") from None


def _rejections(value: str) -> str:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names or not set(names) <= set(REJECTIONS):
        raise ValueError(f"some of {', '.join(REJECTIONS)}, with commas between")
    return value


Paths = Annotated[Any, AfterValidator(_paths)]
Names = Annotated[Any, AfterValidator(_names)]

_OPTIMIZER: dict[str, Any] = {
    "lr": LearningRate,
    "lr_warmup_steps": int | None,
    "lr_warmup_steps_ratio": Fraction,
    "lr_scheduler_type": Literal["constant", "cosine"],
    "lr_decay_style": Literal["constant", "linear", "cosine", "inverse_square_root"],
    "min_lr": LearningRate,
    "min_lr_ratio": Fraction | None,
    "betas": Betas,
    "weight_decay": Annotated[float, Field(ge=0, le=10)],
    "clip_grad": NonNegative,
}
_FSDP: dict[str, Any] = {
    "strategy": Text,
    "param_offload": bool,
    "optimizer_offload": bool,
    "use_torch_compile": bool,
    "ulysses_sequence_parallel_size": Parts,
    "model_dtype": EngineType,
    "dtype": EngineType,
    "mixed_precision": dict[TypeOf, EngineType] | None,
    "fsdp_size": int,
    "reshard_after_forward": bool,
    "offload_policy": bool,
    "forward_prefetch": bool,
}
_MEGATRON: dict[str, Any] = {
    "tensor_model_parallel_size": Parts,
    "pipeline_model_parallel_size": Parts,
    "context_parallel_size": Parts,
    "virtual_pipeline_model_parallel_size": Count | None,
    "sequence_parallel": bool,
    "use_mbridge": bool,
    "param_offload": bool,
    "optimizer_offload": bool,
    "override_transformer_config": dict[str, Any],
    "override_transformer_config.recompute_granularity": Literal["full", "selective"] | None,
    "override_transformer_config.recompute_method": Literal["uniform", "block"] | None,
    "override_transformer_config.recompute_num_layers": Count | None,
}
_CHECKPOINT: dict[str, Any] = {
    "save_contents": Annotated[list[SavedPart], Field(min_length=1)],
    "load_contents": Annotated[list[SavedPart], Field(min_length=1)],
    "async_save": bool,
}
_MODEL: dict[str, Any] = {
    "path": Text,
    "tokenizer_path": Text | None,
    "use_fused_kernels": bool,
    "fused_kernel_options.impl_backend": Literal["torch", "triton"],
    "trust_remote_code": bool,
    "use_remove_padding": bool,
    "enable_gradient_checkpointing": bool,
    "override_config": dict[str, Any],
    "override_config.attn_implementation": Text,
}
_ROLLOUT: dict[str, Any] = {
    "name": Text,
    "dtype": Precision,
    "mode": Literal["async"],
    "n": Samples,
    "temperature": Temperature,
    "top_p": Share,
    "top_k": TopK,
    "calculate_log_probs": bool,
    "do_sample": bool,
    "ignore_eos": bool,
    "enable_prefix_caching": bool,
    "enforce_eager": bool,
    "enable_chunked_prefill": bool,
    "enable_sleep_mode": bool,
    "free_cache_engine": bool,
    "gpu_memory_utilization": Share,
    "max_model_len": Tokens | None,
    "max_num_batched_tokens": Tokens,
    "max_num_seqs": Annotated[int, Field(ge=1, le=1_000_000)],
    "prompt_length": Tokens,
    "response_length": Tokens,
    "tensor_model_parallel_size": Parts,
    "data_parallel_size": Parts,
    "pipeline_model_parallel_size": Parts,
    "log_prob_max_token_len_per_gpu": Tokens,
    "log_prob_use_dynamic_bsz": bool,
    "multi_turn.enable": bool,
    "val_kwargs.do_sample": bool,
    "val_kwargs.n": Samples,
    "val_kwargs.temperature": Temperature,
    "val_kwargs.top_p": Share,
    "val_kwargs.top_k": TopK,
    "agent.agent_loop_manager_class": Text,
    "agent.num_workers": Workers,
    "checkpoint_engine.update_weights_bucket_megabytes": Annotated[int, Field(ge=1, le=1 << 17)],
    "engine_kwargs": dict[str, Any] | None,
    "engine_kwargs.vllm": dict[str, Any] | None,
    "engine_kwargs.vllm.block_size": Count | None,
    "engine_kwargs.vllm.kv_cache_memory_bytes": Count | None,
    "engine_kwargs.vllm.distributed_executor_backend": Text | None,
}


def _below(section: str, kinds: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": kind for key, kind in kinds.items()}


KINDS: dict[str, Any] = {
    **_below("data", {
        "train_files": Paths, "val_files": Paths, "seed": int | None,
        "prompt_key": Literal["prompt"],
        "train_batch_size": Prompts, "gen_batch_size": Prompts | None,
        "max_prompt_length": Tokens, "max_response_length": Tokens,
        "val_max_samples": Annotated[int, Field(ge=-1)],
        "train_max_samples": Annotated[int, Field(ge=-1)],
        "shuffle": bool, "filter_overlong_prompts": bool,
        "filter_overlong_prompts_workers": Workers | None,
        "truncation": Literal["error", "left", "right", "middle"],
        "dataloader_num_workers": Annotated[int, Field(ge=0, le=1024)],
    }),
    "actor_rollout_ref.hybrid_engine": bool,
    **_below("actor_rollout_ref.model", {
        **_MODEL, "custom_chat_template": Text | None, "lora_rank": Natural, "lora.rank": Natural,
        "lora_alpha": Count, "external_lib": Names | None,
    }),
    **_below("actor_rollout_ref.actor", {
        "strategy": Text, "shuffle": bool, "data_loader_seed": int,
        "use_dynamic_bsz": bool, "use_torch_compile": bool, "use_kl_loss": bool,
        "kl_loss_coef": NonNegative,
        "ppo_mini_batch_size": Prompts, "ppo_epochs": Epochs, "ppo_max_token_len_per_gpu": Tokens,
        "ppo_micro_batch_size": Count | None, "ppo_micro_batch_size_per_gpu": Count | None,
        "clip_ratio": NonNegative, "clip_ratio_low": NonNegative, "clip_ratio_high": NonNegative,
        "clip_ratio_c": Annotated[float, Field(gt=1)], "entropy_coeff": Entropy,
        "loss_agg_mode": LossMode, "policy_loss.loss_mode": Text,
        "ulysses_sequence_parallel_size": Parts, "calculate_entropy": bool,
        **_below("optim", _OPTIMIZER), **_below("fsdp_config", _FSDP),
        **_below("megatron", _MEGATRON), **_below("checkpoint", _CHECKPOINT),
    }),
    **_below("actor_rollout_ref.ref", {
        "use_torch_compile": bool, "log_prob_max_token_len_per_gpu": Tokens,
        **_below("fsdp_config", _FSDP), **_below("megatron", _MEGATRON),
    }),
    **_below("actor_rollout_ref.rollout", _ROLLOUT), **_below("refiner.rollout", _ROLLOUT),
    **_below("critic", {
        "enable": bool | None, "strategy": Text, "cliprange_value": Positive, "ppo_epochs": Epochs,
        "ppo_mini_batch_size": Prompts, "ppo_max_token_len_per_gpu": Tokens,
        "ppo_infer_max_token_len_per_gpu": Tokens | None,
        "ppo_micro_batch_size_per_gpu": Count | None, "loss_agg_mode": LossMode,
        "ulysses_sequence_parallel_size": Parts,
        **_below("model", _MODEL), **_below("optim", _OPTIMIZER), **_below("fsdp", _FSDP),
        **_below("megatron", _MEGATRON), **_below("checkpoint", _CHECKPOINT),
    }),
    **_below("algorithm", {
        "adv_estimator": Text, "gamma": Fraction, "lam": Fraction,
        "use_kl_in_reward": bool, "kl_ctrl.type": Literal["fixed", "adaptive"],
        "kl_ctrl.kl_coef": NonNegative, "rollout_correction.bypass_mode": bool,
        "rollout_correction.rollout_is": Literal["token", "sequence"] | None,
        "rollout_correction.rollout_rs": Annotated[str, AfterValidator(_rejections)] | None,
        "norm_adv_by_std_in_grpo": bool, "filter_groups.enable": bool,
        "filter_groups.metric": Text | None,
        "filter_groups.max_num_gen_batches": int,
        "filter_groups.max_inflight_gen_batches": Annotated[int, Field(le=1024)],
    }),
    **_below("reward", {
        "num_workers": Workers, "custom_reward_function.path": Text | None,
        "custom_reward_function.name": Text,
        "custom_reward_function.reward_kwargs": dict[str, Any] | None,
        "reward_manager.name": Text, "reward_kwargs": dict[str, Any],
        "reward_kwargs.max_resp_len": Tokens,
        "reward_kwargs.overlong_buffer_cfg": dict[str, Any] | None,
        "reward_kwargs.overlong_buffer_cfg.enable": bool,
        "reward_kwargs.overlong_buffer_cfg.len": Tokens | None,
        "reward_kwargs.overlong_buffer_cfg.penalty_factor": PenaltyFactor,
        "reward_kwargs.overlong_buffer_cfg.log": bool,
        "reward_model.enable": bool, "reward_model.enable_resource_pool": bool,
        "reward_model.model_path": Text | None,
        "reward_model.nnodes": Annotated[int, Field(ge=0, le=MOST_NODES)],
        "reward_model.n_gpus_per_node": Annotated[int, Field(ge=0, le=MOST_NODE_GPUS)],
        **_below("reward_model.rollout", _ROLLOUT),
    }),
    **_below("trainer", {
        "device": Device, "val_only": bool, "critic_warmup": Natural,
        "nnodes": Nodes, "n_gpus_per_node": NodeGpus, "logger": Names,
        "project_name": Text, "experiment_name": Text, "default_local_dir": Text,
        "val_before_train": bool, "test_freq": int, "save_freq": int,
        "max_actor_ckpt_to_keep": Count | None, "max_critic_ckpt_to_keep": Count | None,
        "resume_mode": Literal["auto", "disable", "resume_path"],
        "resume_from_path": Text | None, "total_epochs": int, "total_training_steps": int | None,
        "use_v1": bool, "v1.trainer_mode": Text, "balance_batch": bool,
    }),
    **_below("machine", {
        "gpu_memory_gib": Annotated[float, Field(gt=0, le=2048)],
        "gpus_per_node": NodeGpus, "nodes": Nodes,
        "host_memory_gib": Positive | None, "gpu_bandwidth_gb_s": Bandwidth | None,
    }),
    **_below("ray_kwargs.ray_init", {
        "address": Text | None, "num_cpus": Natural | None, "num_gpus": Natural | None,
        "object_store_memory": ObjectStore | None, "include_dashboard": bool,
        "runtime_env.py_executable": Text | None,
        "runtime_env.worker_process_setup_hook": Text | None,
    }),
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": Workers,
    "transfer_queue.backend.SimpleStorage.total_storage_size": Count | None,
}  # fmt: skip
"""The type of each key by its dotted name; a key that is not there is not checked."""

CRITIC_PACKING = "ppo_infer_max_token_len_per_gpu"
"""verl packs the critic's micro-batches by this key of its section, updates included."""

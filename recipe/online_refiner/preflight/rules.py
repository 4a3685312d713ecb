"""The one list of rules: what must hold before anything starts, each with its message and fix.

A rule is a function of the plan that yields a sentence for each fault: key, value and fix. The
rules of a constraint are in its own file (`method/`). To add one, write it and name it in `RULES`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.agent_rules import check_agent_loops, check_agent_manager
from recipe.online_refiner.preflight.batch_rules import (
    check_groups,
    check_micro_batches,
    check_mini_batches,
    check_queue,
    check_steps,
    group_warnings,
)
from recipe.online_refiner.preflight.cache_rules import check_caches
from recipe.online_refiner.preflight.data_rules import (
    check_batch,
    check_files,
    check_model_folders,
)
from recipe.online_refiner.preflight.disk_rules import check_disk
from recipe.online_refiner.preflight.gpu_memory_rules import check_memory
from recipe.online_refiner.preflight.gpu_rules import check_gpus, check_splits
from recipe.online_refiner.preflight.layer_rules import check_heads, check_layers
from recipe.online_refiner.preflight.log_rules import check_watched_reading, log_warnings
from recipe.online_refiner.preflight.model_rules import (
    check_refiner_tokenizer,
    check_vocabulary,
    check_writers,
)
from recipe.online_refiner.preflight.name_rules import (
    check_engines,
    check_loggers,
    check_optimizers,
    check_strategies,
)
from recipe.online_refiner.preflight.node_memory_rules import check_node_memory
from recipe.online_refiner.preflight.node_rules import check_node, check_ray_resources, ray_warnings
from recipe.online_refiner.preflight.placement_rules import (
    check_late_join,
    check_mode,
    check_shared_base,
    check_source,
)
from recipe.online_refiner.preflight.prompt_rules import (
    check_context,
    check_prompts,
    check_refiner_context,
)
from recipe.online_refiner.preflight.queueing import check_deadline, deadline_warnings
from recipe.online_refiner.preflight.refiner_rules import (
    check_decoding,
    check_refinable,
    check_refiner_rollout,
    check_top_tokens,
)
from recipe.online_refiner.preflight.registry_rules import (
    check_classes,
    check_estimator,
    check_needed_keys,
    check_older_keys,
    check_registered,
)
from recipe.online_refiner.preflight.reward_fit_rules import (
    check_reward_architecture,
    check_reward_rows,
    check_reward_settings,
)
from recipe.online_refiner.preflight.reward_rules import (
    check_reward,
    check_reward_context,
    check_reward_manager,
    check_reward_model,
    check_reward_servers,
)
from recipe.online_refiner.preflight.score_rules import (
    check_group_metric,
    check_perfect_reward,
    check_score,
    score_warnings,
)
from recipe.online_refiner.preflight.shapes import check_shapes
from recipe.online_refiner.preflight.template_rules import check_template, check_template_budget
from recipe.online_refiner.preflight.turn_rules import turn_warnings
from recipe.online_refiner.preflight.value_rules import (
    check_clips,
    check_engine_batches,
    check_sampling,
    check_warmup,
    value_warnings,
)

Rule = Callable[[RunPlan], Iterator[str]]

ENGINE_PACKAGES = {"vllm": "vllm", "sglang": "sglang"}
VERLS_ATTENTION = "flash_attention_2"
"""What verl trains with under FSDP unless `override_config` names another kind."""


def check_constraint(plan: RunPlan) -> Iterator[str]:
    """The rules of the chosen constraint."""
    yield from constraint_class(plan.config).faults(plan)


def check_places(plan: RunPlan) -> Iterator[str]:
    """A job of Ray's runs in a copy of the working directory that is deleted with the cluster."""
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") and not os.path.isabs(plan.settings.run.dir):
        yield (
            f"run.dir={plan.settings.run.dir!r}: a Ray job runs in a temporary copy of the working "
            "directory, where checkpoints would be lost. Fix: an absolute path on storage that "
            "all nodes share (ONLINE_REFINER_RUNS, or run.dir)"
        )
    folder = _nearest_folder(plan.settings.run.dir)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        yield (
            f"run.dir={plan.settings.run.dir!r}: {str(folder)!r} cannot be written into. Fix: a "
            "folder of your own (ONLINE_REFINER_RUNS, or run.dir)"
        )
    if plan.config.trainer.resume_mode == "resume_path":
        path = plan.config.trainer.resume_from_path
        if path is None or "global_step_" not in path or not Path(path).is_dir():
            yield (
                f"trainer.resume_from_path={path!r}: no folder …/global_step_N is there. Fix: name "
                "one, or trainer.resume_mode=auto for the last one of run.dir"
            )


def _nearest_folder(path: str) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    found = Path(path).expanduser().absolute()
    while not found.exists():
        found = found.parent
    return found


RULES: tuple[Rule, ...] = (
    check_shapes,
    check_engines,
    check_strategies,
    check_optimizers,
    check_registered,
    check_classes,
    check_agent_loops,
    check_agent_manager,
    check_needed_keys,
    check_older_keys,
    check_loggers,
    check_mode,
    check_refinable,
    check_decoding,
    check_top_tokens,
    check_constraint,
    check_watched_reading,
    check_estimator,
    check_source,
    check_shared_base,
    check_late_join,
    check_files,
    check_batch,
    check_model_folders,
    check_template,
    check_prompts,
    check_template_budget,
    check_context,
    check_refiner_context,
    check_writers,
    check_vocabulary,
    check_refiner_tokenizer,
    check_gpus,
    check_splits,
    check_heads,
    check_layers,
    check_mini_batches,
    check_micro_batches,
    check_groups,
    check_queue,
    check_sampling,
    check_engine_batches,
    check_clips,
    check_warmup,
    check_reward,
    check_score,
    check_group_metric,
    check_perfect_reward,
    check_reward_model,
    check_reward_manager,
    check_reward_servers,
    check_reward_context,
    check_reward_settings,
    check_reward_rows,
    check_reward_architecture,
    check_refiner_rollout,
    check_places,
    check_node,
    check_ray_resources,
    check_steps,
    check_memory,
    check_caches,
    check_node_memory,
    check_deadline,
    check_disk,
)


def faults_of(plan: RunPlan) -> list[str]:
    """The sentences of all rules, each once."""
    return list(dict.fromkeys(fault for rule in RULES for fault in rule(plan)))


def warnings_on(plan: RunPlan) -> Iterator[str]:
    """What will run, and may surprise."""
    yield from constraint_class(plan.config).warnings(plan)
    yield from turn_warnings(plan)
    yield from score_warnings(plan)
    yield from value_warnings(plan)
    yield from group_warnings(plan)
    yield from deadline_warnings(plan)
    yield from log_warnings(plan)
    yield from ray_warnings(plan)
    if plan.config.trainer.save_freq <= 0:
        yield (
            f"trainer.save_freq={plan.config.trainer.save_freq}: nothing is saved, and a run that "
            "is interrupted starts again"
        )
    if plan.config.trainer.device != "cpu":
        for name, package in _packages(plan).items():
            if importlib.util.find_spec(package) is None:
                yield f"{name}: the package {package} is not installed in this environment"
    train, held_out = plan.config.data.train_files, plan.config.data.val_files
    if train == held_out:
        yield f"data.val_files={held_out!r} is what is trained on"


def _packages(plan: RunPlan) -> dict[str, str]:
    engine = plan.config.actor_rollout_ref.rollout.name
    wanted = {f"actor_rollout_ref.rollout.name={engine}": ENGINE_PACKAGES.get(engine, engine)}
    own = plan.config.actor_rollout_ref.model.get("override_config") or {}
    if plan.is_megatron:
        wanted["actor_rollout_ref.actor.strategy=megatron"] = "megatron"
    elif own.get("attn_implementation", VERLS_ATTENTION) == VERLS_ATTENTION:
        key = "actor_rollout_ref.model.override_config.attn_implementation"
        wanted[f"{key}={VERLS_ATTENTION}"] = "flash_attn"
    return wanted

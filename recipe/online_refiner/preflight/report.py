"""What the preflight found, and in tables what will run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.choices import ACTOR_POOL, REFINER_POOL, REWARD_POOL
from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.disk_rules import Disk, checkpoint_disk
from recipe.online_refiner.preflight.gpu_memory_rules import Sizes, estimate
from recipe.online_refiner.preflight.host import HostMemory
from recipe.online_refiner.preflight.hours import StepTime, run_hours, step_time
from recipe.online_refiner.preflight.log_rules import log_rows
from recipe.online_refiner.preflight.memory import GIB
from recipe.online_refiner.preflight.node_memory_rules import node_memory
from recipe.online_refiner.preflight.queueing import Waiting, expected_waiting
from recipe.online_refiner.preflight.reward_rules import inspect_reward
from recipe.online_refiner.preflight.rules import faults_of, warnings_on
from recipe.online_refiner.preflight.shapes import Shapes, read_shapes

Row = tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What was found. `faults` prevent the run; `tables` say what will run, a title for each."""

    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    tables: dict[str, list[Row]]

    @property
    def passes(self) -> bool:
        return not self.faults

    def text(self) -> str:
        """The tables, aligned, and the warnings."""
        parts = [f"{title}\n{_aligned(rows)}" for title, rows in self.tables.items() if rows]
        return "\n\n".join([*parts, *(f"warning: {warning}" for warning in self.warnings)])


def preflight(plan: RunPlan) -> Report:
    """Check a plan on this node; the rules are in `rules.py`."""
    shapes, _ = read_shapes(plan)
    level = inspect_reward(plan).isolation_level
    tables = {
        "What will run": roles(plan, shapes, level),
        "Sizes": sizes_of(plan),
        "Memory of a GPU, estimated": memory_rows(estimate(plan)),
        "Memory of a node, estimated": node_rows(node_memory(plan)),
        "Refinements, estimated": waiting_rows(plan, expected_waiting(plan)),
        "Time, estimated": time_rows(step_time(plan), run_hours(plan)),
        "Checkpoints": disk_rows(plan, checkpoint_disk(plan)),
        "Log of rollouts": log_rows(plan),
    }
    return Report(tuple(faults_of(plan)), tuple(warnings_on(plan)), tables)


def roles(plan: RunPlan, shapes: Shapes, level: int | None) -> list[Row]:
    """A row for each role: which model, in which pool, on how many GPUs, how."""
    actor = plan.config.actor_rollout_ref
    of = plan.pools
    unit = "CPU ranks" if plan.config.trainer.device == "cpu" else "GPUs"
    engine, kind = actor.rollout.name, actor.actor.strategy
    policy = f"{actor.model.path} ({_parameters(shapes)})"
    shared = (ACTOR_POOL, f"{of[ACTOR_POOL]} {unit}")
    rows: list[Row] = [
        ("role", "model", "pool", "where", "how"),
        ("actor", policy, *shared, f"{kind}{_split(plan)}"),
        ("policy servers", "the actor's", *shared, _servers(engine, actor.rollout)),
    ]
    if plan.forwards_reference:
        rows.append(("reference", "the initial policy", *shared, kind))
    if plan.has_critic:
        rows.append(("critic", plan.config.critic.model.path, *shared, plan.config.critic.strategy))
    if plan.shares_base:
        rows.append(("refiner", "the actor's base", *shared, "the policy servers, no adapter"))
    elif plan.refines:
        own = plan.has_own_pool
        pool = (REFINER_POOL, f"{of[REFINER_POOL]} {unit}") if own else shared
        average = "an average of the policy's weights" if plan.refines_by_average else None
        model = plan.settings.refiner.model_path or average or "the initial policy"
        how = f"{_servers(engine, actor.rollout, plan.settings.refiner.rollout)}, awake"
        rows.append(("refiner", model, *pool, how if own else f"{how} while rollouts are made"))
    reward_model = plan.config.reward.reward_model
    if reward_model.enable:
        where = REWARD_POOL if REWARD_POOL in of else ACTOR_POOL
        missing = OmegaConf.is_missing(reward_model.rollout, "name")
        served = _servers("?" if missing else reward_model.rollout.name, reward_model.rollout)
        rows.append(
            ("reward model", str(reward_model.model_path), where, f"{of[where]} {unit}", served)
        )
    if level is not None:
        rows.append(("judge", "", "", "every node's CPUs", f"isolation level {level} here"))
    return rows


def sizes_of(plan: RunPlan) -> list[Row]:
    """Batches, lengths and steps."""
    actor, data = plan.config.actor_rollout_ref, plan.config.data
    rows: list[Row] = [
        ("constraint", constraint_class(plan.config).describe(plan.settings)),
        ("a step", f"{data.train_batch_size} prompts × {actor.rollout.n} rollouts"),
        ("a mini-batch", f"{actor.actor.ppo_mini_batch_size} prompts"),
        ("prompt, response", f"{data.max_prompt_length}, {data.max_response_length} tokens"),
        ("steps", f"{plan.config.trainer.total_training_steps or 'all of'} in at most "
         f"{plan.config.trainer.total_epochs} epochs"),
        ("writes to", plan.settings.run.dir),
    ]  # fmt: skip
    if plan.refines:
        choice, limits = plan.decoding, plan.limits
        late = "; joined late" if plan.joins_late else ""
        rows.insert(4, ("refinements", f"decoded by {choice.decoding} ({choice.why}){late}"))
        rows.insert(
            4,
            (
                "refiner's context",
                f"{limits.max_prompt_tokens} + response = {plan.limits.context_tokens}",
            ),
        )
    return rows


def memory_rows(sizes: Sizes | None) -> list[Row]:
    """Peaks against the GPU's size, and what each server's share holds."""
    if sizes is None:
        return []
    total = f"of {sizes.gpu_bytes / GIB:.0f} GiB"
    rows: list[Row] = [
        ("while rollouts are made", f"{sizes.peaks.rollout / GIB:.1f}", total),
        ("during an update", f"{sizes.peaks.update / GIB:.1f}", total),
    ]
    for role, one in sizes.servers.items():
        share = f"{one.share_bytes / GIB:.1f}"
        rows.append((f"share of the {role} server", share, f"cache: {one.cache_tokens:,} tokens"))
    return rows


def node_rows(found: HostMemory | None) -> list[Row]:
    """What a trainer node holds in its own memory, largest first."""
    if found is None:
        return []
    parts = sorted(found.parts.items(), key=lambda part: -part[1])
    rows: list[Row] = [(name, f"{size / GIB:.0f} GiB") for name, size in parts if size]
    rows.append(("more at the start", f"{found.start / GIB:.0f} GiB"))
    rows.append(("more while saving", f"{found.checkpoint / GIB:.0f} GiB"))
    return [*rows, ("at most", f"{found.peak / GIB:.0f} GiB")]


def waiting_rows(plan: RunPlan, found: Waiting | None) -> list[Row]:
    """How long refinements wait, against their deadline."""
    if found is None:
        return []
    return [
        ("the mean one waits", f"{found.mean_s:.0f} s"),
        ("the last of a step waits", f"{found.last_s:.0f} s"),
        ("refiner.deadline_s", f"{plan.settings.refiner.deadline_s:g} s"),
    ]


def time_rows(step: StepTime | None, hours: float | None) -> list[Row]:
    """How long a step takes, and the run, if no group is dropped."""
    if step is None:
        return []
    rows: list[Row] = [
        ("a step", f"{step.total_s:.0f} s"),
        ("of which rollouts", f"{step.rollouts_s:.0f} s"),
        ("refinements", f"{step.refinements_s:.0f} s"),
        ("training", f"{step.training_s:.0f} s"),
    ]
    return rows if hours is None else [*rows, ("the run", f"{hours:.0f} h")]


def disk_rows(plan: RunPlan, disk: Disk | None) -> list[Row]:
    """The size of checkpoints against the disk."""
    if disk is None:
        return []
    return [
        ("each", f"{disk.one / GIB:.1f} GiB"),
        ("at most", f"{disk.kept / GIB:.1f} GiB"),
        ("free", f"{disk.free / GIB:.1f} GiB"),
        ("every", f"{plan.config.trainer.save_freq} steps"),
    ]


def _parameters(shapes: Shapes) -> str:
    if shapes.policy is None:
        return "?"
    billions = shapes.policy.parameters / 1e9
    return f"{billions:.2f} B" if billions >= 0.1 else f"{1000 * billions:.1f} M"


def _split(plan: RunPlan) -> str:
    if not plan.is_megatron:
        return ""
    section = plan.config.actor_rollout_ref.actor.megatron
    sizes = (section.tensor_model_parallel_size, section.pipeline_model_parallel_size)
    return f", tensor {sizes[0]} × pipeline {sizes[1]}"


def _servers(engine: str, rollout: DictConfig, own: dict[str, object] | None = None) -> str:
    split = (own or {}).get("tensor_model_parallel_size", rollout.tensor_model_parallel_size)
    return f"{engine}, {split} to a server"


def _aligned(rows: Sequence[Row]) -> str:
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
             for row in rows]  # fmt: skip
    return "\n".join(f"  {line}".rstrip() for line in lines)

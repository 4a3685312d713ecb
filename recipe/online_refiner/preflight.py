"""`python -m recipe.online_refiner.preflight experiment=… hardware=… KEY=VALUE …`

Says in seconds, without a GPU and without model weights, whether a run can start on this node, and
what will run. Exit status 0, or 2 with a sentence per fault: key, value and fix.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import hydra
from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.budgets import refine_limits, refiner_model_length
from recipe.online_refiner.checks import check
from recipe.online_refiner.memory import GIB
from recipe.online_refiner.preflight_checks import (
    JUDGE_PATH,
    RULES,
    has_critic,
    is_megatron,
    judge_keys,
    pools,
    warnings_on,
)
from recipe.online_refiner.preflight_sizes import (
    Disk,
    Shapes,
    Sizes,
    check_disk,
    check_memory,
    checkpoint_disk,
    estimate,
    read_shapes,
)
from recipe.online_refiner.refiner_engine import decoding_choice
from recipe.online_refiner.settings import ConfigError, Kind, Settings, read_settings
from recipe.online_refiner.turn_checks import turn_warnings
from recipe.online_refiner.verl_keys import apply_settings
from reward.config import JudgeConfig, JudgeConfigError
from reward.sandbox.client import SandboxError, ZygoteClient
from reward.sandbox.wire import Level

EXIT_BAD_CONFIG = 2
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


def preflight(config: DictConfig, settings: Settings) -> Report:
    """Check a composed config, to which the settings were applied, on this node."""
    shapes, faults = read_shapes(config, settings)
    faults += _faults_of_check(config, settings, reachable=not faults)
    faults += [fault for rule in RULES for fault in rule(config, settings)]
    sizes = estimate(config, settings, shapes)
    if sizes is not None:
        faults += check_memory(config, settings, sizes)
    disk = checkpoint_disk(config, shapes)
    if disk is not None:
        faults += check_disk(config, disk)
    level, sandbox_faults = probe_sandbox(config)
    faults += sandbox_faults
    tables = {
        "What will run": roles(config, settings, shapes, level),
        "Sizes": sizes_of(config, settings),
        "Memory of a GPU, estimated": memory_rows(sizes),
        "Checkpoints": disk_rows(config, disk),
    }
    warnings = (*warnings_on(config, settings), *turn_warnings(config, settings))
    return Report(tuple(dict.fromkeys(faults)), warnings, tables)


def _faults_of_check(config: DictConfig, settings: Settings, *, reachable: bool) -> list[str]:
    try:
        check(config, settings)
    except ConfigError as error:
        return str(error).splitlines()
    except (OSError, ValueError) as error:  # transformers has no class of its own for these
        if not reachable:
            return []  # said already
        path = config.actor_rollout_ref.model.path
        return [
            f"actor_rollout_ref.model.path={path!r}: its tokenizer could not be read "
            f"({str(error).splitlines()[0][:120]}). Fix: check the name, or download it first"
        ]
    return []


def probe_sandbox(config: DictConfig) -> tuple[Level | None, list[str]]:
    """The isolation that this node gives untrusted programs; None where none are judged."""
    if config.reward.custom_reward_function.path != JUDGE_PATH:
        return None, []
    try:
        judge = JudgeConfig.from_mapping(judge_keys(config))
        level = _isolation_of_this_node(judge.max_level)
    except (JudgeConfigError, TypeError):
        return None, []  # check_reward says what is wrong with it
    except SandboxError as error:
        return None, [f"the sandbox does not start on this node: {error}. Fix: see docs/judge.md"]
    if level < judge.min_level:
        return level, [
            f"reward.custom_reward_function.reward_kwargs.min_level={judge.min_level}: this node "
            f"isolates programs at level {int(level)}. Fix: "
            "`python -m reward.selftest` says what is missing; or lower min_level"
        ]
    return level, []


@functools.cache
def _isolation_of_this_node(max_level: int) -> Level:
    zygote = ZygoteClient(Level.NONE, Level(max_level))
    zygote.close()
    return zygote.level


def roles(config: DictConfig, settings: Settings, shapes: Shapes, level: Level | None) -> list[Row]:
    """A row for each role: which model, in which pool, on how many GPUs, how."""
    actor = config.actor_rollout_ref
    of = pools(config, settings)
    unit = "CPU ranks" if config.trainer.device == "cpu" else "GPUs"
    engine, kind = actor.rollout.name, actor.actor.strategy
    policy = f"{actor.model.path} ({_parameters(shapes)})"
    shared = ("global_pool", f"{of['global_pool']} {unit}")
    rows: list[Row] = [
        ("role", "model", "pool", "where", "how"),
        ("actor", policy, *shared, f"{kind}{_split(config)}"),
        ("policy servers", "the actor's", *shared, _servers(engine, actor.rollout)),
    ]
    if settings.constraint.kind is Kind.STATIC_KL or settings.monitor.kl_to_reference:
        rows.append(("reference", "the initial policy", *shared, kind))
    if has_critic(config):
        rows.append(("critic", config.critic.model.path, *shared, config.critic.strategy))
    if settings.shares_base:
        rows.append(("refiner", "the actor's base", *shared, "the policy servers, no adapter"))
    elif settings.refines:
        own = "refiner_pool" in of
        pool = ("refiner_pool", f"{of['refiner_pool']} {unit}") if own else shared
        average = "an average of the policy's weights" if settings.refines_by_average else None
        model = settings.refiner.model_path or average or "the initial policy"
        how = f"{_servers(engine, actor.rollout, settings.refiner.rollout)}, awake"
        rows.append(("refiner", model, *pool, how if own else f"{how} while rollouts are made"))
    reward_model = config.reward.reward_model
    if reward_model.enable:
        where = "reward_pool" if "reward_pool" in of else "global_pool"
        missing = OmegaConf.is_missing(reward_model.rollout, "name")
        served = _servers("?" if missing else reward_model.rollout.name, reward_model.rollout)
        rows.append(("reward model", reward_model.model_path, where, f"{of[where]} {unit}", served))
    if level is not None:
        rows.append(("judge", "", "", "every node's CPUs", f"isolation level {int(level)} here"))
    return rows


def sizes_of(config: DictConfig, settings: Settings) -> list[Row]:
    """Batches, lengths and steps."""
    actor, data = config.actor_rollout_ref, config.data
    limits = refine_limits(config, settings)
    constraint = settings.constraint
    arm = str(constraint.kind)
    if constraint.kind is Kind.DYNAMIC:
        arm = f"{arm}, inject={constraint.inject}, λ={constraint.lambda_:g}"
    rows: list[Row] = [
        ("constraint", arm),
        ("a step", f"{data.train_batch_size} prompts × {actor.rollout.n} rollouts"),
        ("a mini-batch", f"{actor.actor.ppo_mini_batch_size} prompts"),
        ("prompt, response", f"{data.max_prompt_length}, {data.max_response_length} tokens"),
        ("steps", f"{config.trainer.total_training_steps or 'all of'} in at most "
         f"{config.trainer.total_epochs} epochs"),
        ("writes to", settings.run.dir),
    ]  # fmt: skip
    if settings.refines:
        length = refiner_model_length(limits)
        choice = decoding_choice(config, settings)
        rows.insert(4, ("refinements", f"decoded by {choice.decoding} ({choice.why})"))
        rows.insert(4, ("refiner's context", f"{limits.max_prompt_tokens} + answer = {length}"))
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


def disk_rows(config: DictConfig, disk: Disk | None) -> list[Row]:
    """The size of checkpoints against the disk."""
    if disk is None:
        return []
    return [
        ("each", f"{disk.one / GIB:.1f} GiB"),
        ("at most", f"{disk.kept / GIB:.1f} GiB"),
        ("free", f"{disk.free / GIB:.1f} GiB"),
        ("every", f"{config.trainer.save_freq} steps"),
    ]


def _parameters(shapes: Shapes) -> str:
    if shapes.policy is None:
        return "?"
    billions = shapes.policy.parameters / 1e9
    return f"{billions:.2f} B" if billions >= 0.1 else f"{1000 * billions:.1f} M"


def _split(config: DictConfig) -> str:
    if not is_megatron(config):
        return ""
    section = config.actor_rollout_ref.actor.megatron
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


def refusal(faults: Iterable[str]) -> str:
    """What is printed where a run cannot start."""
    return "\n".join(["The configuration cannot run:", *(f"- {fault}" for fault in faults)])


@hydra.main(config_path="config", config_name="online_refiner", version_base=None)
def main(config: DictConfig) -> None:
    """Print what will run; exit with 2 and the faults where it cannot."""
    try:
        settings = read_settings(config)
    except ConfigError as error:
        print(refusal(str(error).splitlines()), file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)
    apply_settings(config, settings)
    report = preflight(config, settings)
    print(report.text())
    if not report.passes:
        print(f"\n{refusal(report.faults)}", file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)


if __name__ == "__main__":
    main()

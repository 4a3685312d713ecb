"""What the log of rollouts holds, how large it gets, and whether it fits on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipe.online_refiner.method.readings import logits_faults
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.memory import GIB

MIB = 1 << 20
PROMPT_TOKEN_BYTES, ROLLOUT_TOKEN_BYTES, REFINED_TOKEN_BYTES = 5, 40, 60
"""A token's share of a line: its text, the token by itself, and its numbers. With the tiny model's
short tokens `scripts/bench/rollout_log.py` measures 26 and 41; those of a vocabulary of 100,000 are
twice as long. Text in scripts that JSON escapes takes more."""


@dataclass(frozen=True)
class LogSize:
    """Bytes that the rollouts of one step take and those of the run, if every response has its
    full length; `run` is None if the number of steps is not known. `free` is where they go.
    """

    step: int
    run: int | None
    free: int


def log_size(plan: RunPlan) -> LogSize:
    """The largest log of `run.log_share`."""
    data, rollouts = plan.config.data, plan.config.actor_rollout_ref.rollout.n
    per_token = ROLLOUT_TOKEN_BYTES + (REFINED_TOKEN_BYTES if plan.refines else 0)
    one = (
        data.max_prompt_length * PROMPT_TOKEN_BYTES + int(data.max_response_length) * per_token
    )  # fmt: skip
    step = int(data.train_batch_size * rollouts * one * plan.settings.run.log_share)
    steps = plan.config.trainer.total_training_steps
    folder = Path(plan.settings.run.dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return LogSize(step, None if steps is None else steps * step, shutil.disk_usage(folder).free)


def log_rows(plan: RunPlan) -> list[tuple[str, ...]]:
    """The size of the log as the preflight's table says it."""
    size = log_size(plan)
    rows = [("share of the problems", f"{plan.settings.run.log_share:g}"),
            ("a step at most", f"{size.step / MIB:.1f} MiB")]  # fmt: skip
    if size.run is not None:
        rows.append(("the run at most", f"{size.run / GIB:.1f} GiB"))
    return [*rows, ("free", f"{size.free / GIB:.1f} GiB")]


def log_warnings(plan: RunPlan) -> Iterator[str]:
    """A run whose log could fill the disk."""
    yield from size_warnings(log_size(plan), plan.settings.run.log_share)


def size_warnings(size: LogSize, share: float) -> Iterator[str]:
    """The warning of a log that is larger than what is free."""
    if size.run is not None and size.run > size.free:
        fitting = share * size.free / size.run
        yield (
            f"run.log_share={share:g}: the log of all rollouts may take {size.run / GIB:.1f} GiB, "
            f"and {size.free / GIB:.1f} GiB are free. Fix: run.log_share={fitting / 2:.1g}, or "
            "run.dir on a larger disk"
        )


def check_watched_reading(plan: RunPlan) -> Iterator[str]:
    """The pass for the old log-probs can yield the cross entropy that is only logged."""
    if plan.settings.monitor.self_fed_ce:
        key = "monitor.self_fed_ce"
        yield from logits_faults(plan.config, f"{key}=True", f"{key}=false")

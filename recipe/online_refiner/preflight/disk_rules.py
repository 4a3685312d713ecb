"""Do the checkpoints fit on the disk that they go to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.memory import checkpoint_bytes
from recipe.online_refiner.preflight.shapes import gib, read_shapes


@dataclass(frozen=True)
class Disk:
    """Bytes of one checkpoint, of all that stay on the disk, and what is free where they go."""

    one: int
    kept: int
    free: int


def checkpoint_disk(plan: RunPlan) -> Disk | None:
    """Space for checkpoints; one more than is kept, since the oldest goes after the newest came."""
    shapes, _ = read_shapes(plan)
    if plan.config.trainer.save_freq <= 0 or shapes.policy is None:
        return None
    one = checkpoint_bytes(shapes.policy.parameters)
    if shapes.critic is not None:
        one += checkpoint_bytes(shapes.critic.parameters)
    count = plan.config.trainer.max_actor_ckpt_to_keep
    if count is None:
        steps = plan.config.trainer.total_training_steps or 1
        count = max(1, steps // plan.config.trainer.save_freq)
    folder = Path(plan.config.trainer.default_local_dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return Disk(one, one * (count + 1), shutil.disk_usage(folder).free)


def check_disk(plan: RunPlan) -> Iterator[str]:
    """The checkpoints that are kept fit where they go."""
    disk = checkpoint_disk(plan)
    if disk is not None:
        yield from disk_faults(plan, disk)


def disk_faults(plan: RunPlan, disk: Disk) -> Iterator[str]:
    """The fault of a disk that is too small."""
    if disk.kept > disk.free:
        yield (
            f"trainer.default_local_dir={plan.config.trainer.default_local_dir!r}: its disk has "
            f"{gib(disk.free)} free, and trainer.max_actor_ckpt_to_keep="
            f"{plan.config.trainer.max_actor_ckpt_to_keep} with checkpoints of {gib(disk.one)} "
            f"takes {gib(disk.kept)}. Fix: keep fewer, or run.dir on a larger disk"
        )

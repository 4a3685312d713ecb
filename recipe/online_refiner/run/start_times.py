"""What a run's start spends its time on, phase by phase and process by process, for run.json.

Times are those of each node's clock. A phase says what one process did or waited for between two
moments; phases of different processes overlap.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER, TRAINER, REFINER = "driver", "trainer", "refiner's servers"
"""The processes whose phases are recorded."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a process's start; `started` and `ended` in seconds since the epoch."""

    process: str
    name: str
    started: float
    ended: float


class StartClock:
    """Records one phase after the other in one process.

    Args:
        process: its name in the record. since: when its first phase began; default: when this
            process did.
    """

    def __init__(self, process: str, since: float | None = None) -> None:
        self._process = process
        self._since = process_started() if since is None else since
        self.phases: list[Phase] = []

    def lap(self, name: str) -> None:
        """End the phase that has gone on since the last call."""
        now = time.time()
        self.phases.append(Phase(self._process, name, self._since, now))
        self._since = now

    def add(self, process: str, name: str, started: float, ended: float) -> None:
        """Record a phase of something that this process has started beside its own phases."""
        self.phases.append(Phase(process, name, started, ended))


def add_phases(folder: Path, phases: Sequence[Phase], first_step: bool = False) -> None:
    """Add phases to `timing` in run.json, whose zero is the start of the first phase.

    Args:
        first_step: whether the last of them ended with the first step; adds `first_step_s`.
    """
    path = folder / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    timing: dict[str, Any] = content.get("timing") or {
        "zero": min(phase.started for phase in phases),
        "phases": [],
    }
    zero = timing["zero"]
    timing["phases"] += [
        {
            "process": phase.process,
            "phase": phase.name,
            "start_s": round(phase.started - zero, 3),
            "end_s": round(phase.ended - zero, 3),
        }
        for phase in phases
    ]
    if first_step:
        timing["first_step_s"] = round(phases[-1].ended - zero, 3)
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(content | {"timing": timing}, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def process_started() -> float:
    """When this process was created, in seconds since the epoch (from Linux's /proc)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    after_boot_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - after_boot_s)

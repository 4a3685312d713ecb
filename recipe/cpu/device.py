"""The accelerator module that verl talks to on a machine without an accelerator.

verl calls `get_torch_device().<function>` where it means `torch.cuda.<function>`. `torch.cpu` has a
third of these functions, and the first missing one ends the run: `memory_allocated` at the start
(`verl/utils/profiler/performance.py`), `max_memory_allocated` and `empty_cache` after every
update (`verl/workers/engine_workers.py`).

This module is `torch.cpu` plus what is missing. `torch.cpu` itself is left as it is. Memory figures
are the process's own resident set in bytes, so that verl's `perf/max_memory_allocated_gb` still
means something; there is no cache to empty, and the random state is torch's CPU generator.
"""

from __future__ import annotations

import resource
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

_BYTES_PER_MAXRSS_UNIT = 1024  # Linux counts ru_maxrss in KiB

get_rng_state = torch.get_rng_state
set_rng_state = torch.set_rng_state
manual_seed = torch.manual_seed
manual_seed_all = torch.manual_seed


def __getattr__(name: str) -> Any:
    """Everything that torch.cpu does have comes from there."""
    return getattr(torch.cpu, name)


def empty_cache() -> None:
    """Do nothing: the CPU allocator keeps no cache."""


def ipc_collect() -> None:
    """Do nothing: CPU tensors travel through shared memory, which the kernel counts."""


def reset_peak_memory_stats() -> None:
    """Do nothing: the kernel's high-water mark cannot be reset without privileges."""


def memory_allocated() -> int:
    """Resident memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


def max_memory_allocated() -> int:
    """The most resident memory that this process has had, in bytes."""
    high_water = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_PER_MAXRSS_UNIT
    return max(high_water, memory_allocated())  # the kernel's mark lags behind a little


memory_reserved = memory_allocated
max_memory_reserved = max_memory_allocated


def mem_get_info() -> tuple[int, int]:
    """(available, total) memory of the machine in bytes, as torch.cuda.mem_get_info."""
    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def get_device_name() -> str:
    """The key of the row in verl's table of peak FLOP rates (`verl/utils/flops_counter.py`)."""
    return "CPU"

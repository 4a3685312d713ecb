"""What every Ray worker of a CPU run does first (`worker_process_setup_hook` in cpu_debug.yaml)."""

import gc

ALLOCATIONS = 200_000
"""Containers made and not freed before the collector looks at the youngest; Python has 700."""


def collect_rarely() -> None:
    """Let Python look for unreachable cycles less often.

    A worker starts by importing thousands of modules, all of which stay, and the collector walks
    them again and again: about a tenth of the time that a training on two cores takes to start.
    """
    gc.set_threshold(ALLOCATIONS, 100, 1000)

"""The memory in use, sampled while something runs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from recipe.acceptance.machine import MIB, Machine, gpu_memory_command, process_memory_bytes
from recipe.acceptance.timeline import Sample

GPU_EVERY_S, PROCESSES_EVERY_S = 0.2, 0.5
"""Seconds between two samples."""
JOIN_S = 20.0


@contextmanager
def watched(machine: Machine, pid: int) -> Iterator[list[Sample]]:
    """Samples, added until the block ends: of the GPU, or of a process and what it started."""
    samples: list[Sample] = []
    stop = threading.Event()
    watch = _watch_gpu if machine.on_gpu else _watch_processes(pid)
    thread = threading.Thread(target=watch, args=(samples, stop), daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join(timeout=JOIN_S)


def _watch_gpu(samples: list[Sample], stop: threading.Event) -> None:
    command = gpu_memory_command(every_ms=int(1000 * GPU_EVERY_S))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as smi:
        assert smi.stdout is not None
        for line in smi.stdout:
            if line.strip().isdigit():
                samples.append(Sample(time.time(), int(line) * MIB))
            if stop.is_set():
                smi.terminate()


def _watch_processes(pid: int) -> Callable[[list[Sample], threading.Event], None]:
    def watch(samples: list[Sample], stop: threading.Event) -> None:
        while not stop.wait(PROCESSES_EVERY_S):
            samples.append(Sample(time.time(), process_memory_bytes(pid)))

    return watch

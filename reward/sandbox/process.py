"""What the executor knows of processes: their files, their deaths, the time they have left."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reward.sandbox import runner
from reward.sandbox.wire import End, Limits

_CPU_SIGNALS = (-signal.SIGXCPU, -signal.SIGKILL)
_PARKING_FD, _MAX_FD = 200, 1024  # a check has few descriptors, all below the first
_BUSY_SHARE, _BUSY_FACTOR = 1 / 8, 8


@dataclass(frozen=True)
class Files:
    """Memory files of one group: (input, output) per test, and one for everything else written."""

    pairs: list[tuple[int, int]]
    sink: int


@dataclass(frozen=True)
class Death:
    """How a process ended."""

    isolated: bool
    exit_code: int
    over_cpu: bool
    ended_by_us: bool
    cpu_s: float

    def explain(self, phase: int) -> tuple[End, str]:
        """What it says about the test that was running."""
        if phase <= runner.PHASE_COMPILING:
            return End.COMPILE, "time limit" if self.over_cpu else _name(self.exit_code)
        if self.over_cpu:
            return End.TIME, ""
        if self.exit_code == 0:
            return End.OK, ""
        if self.exit_code == -signal.SIGKILL and not self.ended_by_us:
            return End.BROKEN, "killed from outside"
        return End.EXCEPTION, _name(self.exit_code)


def death_of(
    status: int, usage: resource.struct_rusage, ended_by_us: bool, timed_out: bool, limits: Limits
) -> Death:
    """The death that wait4 reports; whether it was isolated is for the caller to add."""
    cpu_s = usage.ru_utime + usage.ru_stime
    exit_code = os.waitstatus_to_exitcode(status)
    over_cpu = timed_out or (exit_code in _CPU_SIGNALS and cpu_s >= limits.cpu_s)
    return Death(False, exit_code, over_cpu, ended_by_us, cpu_s)


def end_orphans() -> None:
    """Kill what programs have forked, where no filter keeps them from it; best effort."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        while True:
            if os.getpid() == 1:  # of a PID namespace, where it is everybody but us
                os.kill(-1, signal.SIGKILL)
            else:
                for child in Path("/proc/thread-self/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
            os.wait()


@contextmanager
def memory_files(inputs: list[bytes]) -> Iterator[Files]:
    """Files for these inputs, closed at the end; OSError where memory or descriptors run out."""
    fds: list[int] = []

    def create(content: bytes = b"") -> int:
        fd = os.memfd_create("file")
        fds.append(fd)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    try:
        yield Files([(create(data), create()) for data in inputs], create())
    finally:
        for fd in fds:
            os.close(fd)


def keep_only(socket_fd: int, *others: int) -> list[int]:
    """Close everything above stderr but these; their new numbers, in order."""
    kept = []
    for number, fd in enumerate((socket_fd, *others), start=_PARKING_FD):
        os.dup2(fd, number)
        kept.append(number)
    os.closerange(3, _PARKING_FD)
    os.closerange(_PARKING_FD + len(kept), _MAX_FD)
    return kept


def cpu_seconds(clock: int) -> float:
    """What a process's CPU clock shows."""
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0  # the process has just ended


def time_left(limits: Limits, wall_s: float, cpu_s: list[float]) -> float:
    """Seconds until the next look; not above zero where a limit is reached.

    A program that computes but is starved of CPU by its neighbours is not cut off by the wall
    clock: that limit is for programs that sleep.
    """
    busy = sum(cpu_s) > wall_s * _BUSY_SHARE
    wall_limit_s = limits.wall_s * (_BUSY_FACTOR if busy else 1)
    return min(limits.cpu_s - max(cpu_s), wall_limit_s - wall_s)


def _name(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"

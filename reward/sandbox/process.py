"""What the executor knows of processes: their files, their deaths, the time they have left."""

import contextlib
import fcntl
import mmap
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reward.sandbox.record import PAGE_BYTES, Record
from reward.sandbox.wire import Death, Limits, Order, memory_file

_CPU_SIGNALS = (-signal.SIGXCPU, -signal.SIGKILL)
_PARKING_FD, _MAX_FD = 200, 1024  # a check has few descriptors, all below the first
_BUSY_SHARE, _BUSY_FACTOR = 1 / 8, 8


@dataclass(frozen=True)
class Files:
    """Memory files of one group: (input, output) per test, and one for everything else written."""

    pairs: list[tuple[int, int]]
    sink: int


@dataclass(frozen=True)
class Page:
    """The record page of a zygote: a file that cannot shrink, so that no program can cut it off."""

    fd: int
    record: Record

    @classmethod
    def create(cls) -> "Page":
        fd = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, PAGE_BYTES)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return cls(fd, Record(mmap.mmap(fd, PAGE_BYTES)))


def death_of(
    status: int, usage: resource.struct_rusage, ended_by_us: bool, timed_out: bool, limits: Limits
) -> Death:
    """The death that wait4 reports; whether it was isolated is for the caller to add."""
    cpu_s = usage.ru_utime + usage.ru_stime
    exit_code = os.waitstatus_to_exitcode(status)
    over_time = timed_out or (exit_code in _CPU_SIGNALS and cpu_s >= limits.cpu_s)
    return Death(False, exit_code, over_time, ended_by_us, cpu_s)


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
def memory_files(order: Order) -> Iterator[Files]:
    """Files for an order's inputs, closed at the end; OSError if memory or descriptors run out.

    The kernel copies the inputs: this process never has them.
    """
    fds: list[int] = []

    def create() -> int:
        fds.append(memory_file())
        return fds[-1]

    try:
        pairs, start = [], order.code_bytes
        for size in order.input_bytes:
            given = create()
            copy(given, order.content, start, size)
            os.lseek(given, 0, os.SEEK_SET)
            pairs.append((given, create()))
            start += size
        yield Files(pairs, create())
    finally:
        for fd in fds:
            os.close(fd)


def copy(to: int, source: int, start: int, size: int) -> None:
    """Append `size` bytes of the file `source` to `to`, in the kernel."""
    while size > 0:
        done = os.sendfile(to, source, start, size)
        if done == 0:
            raise OSError("a memory file is shorter than it should be")
        start, size = start + done, size - done


def gather(page: Page, outputs: list[int], limit: int) -> tuple[int, list[int]]:
    """One file with the record page and all outputs below the limit; and the outputs' sizes."""
    result = memory_file()
    try:
        copy(result, page.fd, 0, PAGE_BYTES)
        sizes = [os.fstat(output).st_size for output in outputs]
        for output, size in zip(outputs, sizes, strict=True):
            if size < limit:
                copy(result, output, 0, size)
    except BaseException:
        os.close(result)
        raise
    return result, sizes


def close_but(socket_fd: int, *others: int) -> list[int]:
    """Close everything above stderr but these; their new numbers, in order."""
    left = []
    for number, fd in enumerate((socket_fd, *others), start=_PARKING_FD):
        os.dup2(fd, number)
        left.append(number)
    os.closerange(3, _PARKING_FD)
    os.closerange(_PARKING_FD + len(left), _MAX_FD)
    return left


def read_all(fd: int) -> bytes:
    """What a file holds; its position stays."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def cpu_seconds(clock: int) -> float:
    """What a process's CPU clock shows."""
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0  # the process has just ended


def time_left(limits: Limits, wall_s: float, cpu_s: list[float]) -> float:
    """Seconds until the next look; not above zero where a limit is reached.

    A program that computes but is starved of CPU by its neighbours is not cut off by the wall
    clock that is for programs that sleep, but by its total time.
    """
    busy = sum(cpu_s) > wall_s * _BUSY_SHARE
    wall_limit_s = min(limits.total_s, limits.wall_s * (_BUSY_FACTOR if busy else 1))
    return min(limits.cpu_s - max(cpu_s), wall_limit_s - wall_s)

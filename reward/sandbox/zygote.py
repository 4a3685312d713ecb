"""The process that programs are forked from: exec'd, warm, and ignorant of every expected output.

    judge ──socket──> zygote ──fork──> program's process (confined, then compiles and runs)

The zygote imports what contest programs import, once; feeds inputs and collects outputs through
memory files; enforces time; and says how each test's run ended. At Level.FULL it is process 1 of
its PID namespace, below a launcher that only waits.

Run as `python -S -s -c BOOT <socket fd> <JSON options>`; see `client.py`.
"""

import atexit
import builtins
import contextlib
import gc
import importlib
import importlib.util
import json
import mmap
import os
import resource
import select
import signal
import site
import socket
import sys
import threading
import time
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from reward.sandbox import isolation, runner, wire
from reward.sandbox.wire import End, Level, Request, RunResult

_STACK_BYTES = 512 << 20
_THREAD_STACK_BYTES = 16 << 20
_STARTED = "ZYGOTE_STARTED"
_WARM = (
    "array", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "io", "itertools", "json",
    "math", "numbers", "operator", "queue", "random", "re", "statistics", "string", "struct",
    "textwrap", "threading", "time", "traceback", "typing",
)  # fmt: skip


def main() -> None:
    """Entry point: argv is [name, socket fd, options as JSON]."""
    fd, options = int(sys.argv[1]), json.loads(sys.argv[2])
    _raise_stack_limit()
    os.environ.pop(_STARTED, None)
    sock = socket.socket(fileno=fd)
    namespaced = False
    if options["max_level"] >= Level.FULL:
        try:
            isolation.enter_namespaces()
            namespaced = True
        except OSError as error:
            wire.send(sock, {"retry_without_namespaces": str(error)}, [])
            return
    if namespaced:
        _become_process_one(sock)
    _serve(sock, options, namespaced)


def _raise_stack_limit() -> None:
    """Deep recursion needs the stack limit raised before exec, so exec once more with it raised."""
    if _STARTED in os.environ:
        return
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    soft = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    os.environ[_STARTED] = "1"
    os.set_inheritable(int(sys.argv[1]), True)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _become_process_one(sock: socket.socket) -> None:
    """Return in process 1 of the new PID namespace; the launcher waits and exits with it."""
    child = os.fork()
    if child == 0:
        return
    sock.close()
    isolation.die_with_parent()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
    os._exit(0)


def _serve(sock: socket.socket, options: dict[str, Any], namespaced: bool) -> None:
    sys.set_int_max_str_digits(0)
    threading.stack_size(_THREAD_STACK_BYTES)
    site.setquit()
    _import_packages(options["packages"])
    for name in _WARM:
        importlib.import_module(name)
    page = mmap.mmap(-1, mmap.PAGESIZE)
    walls = isolation.prepare(namespaced, options["packages"], Level(options["max_level"]))
    _forget_ourselves()
    gc.collect()
    gc.freeze()
    zygote = Zygote(sock, walls, runner.Record(page))
    wire.send(sock, {"level": int(walls.level)}, [])
    while True:
        try:
            header, blobs = wire.receive(sock)
        except wire.ConnectionLost:
            return
        zygote.answer(Request.parse(header, blobs))


_CPU_SIGNALS = (-signal.SIGXCPU, -signal.SIGKILL)
_RECORDED = (End.NOT_RUN, End.OK, End.EXCEPTION, End.MEMORY)


class PackageFinder:
    """Finds the allowed third-party packages, and nothing else beside them."""

    def __init__(self, folders: dict[str, str]) -> None:
        self.parents = {name: os.path.dirname(folder) for name, folder in folders.items()}

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None and name in self.parents:
            return PathFinder.find_spec(name, [self.parents[name]])
        return None


def _import_packages(folders: dict[str, str]) -> None:
    sys.meta_path.append(PackageFinder(folders))
    for name in folders:
        if importlib.util.find_spec(name) is not None:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def _forget_ourselves() -> None:
    """Programs see an ordinary interpreter: no path, arguments, environment or modules of ours."""
    os.environ.clear()
    sys.argv[:] = ["program.py"]
    sys.orig_argv[:] = []
    sys.path[:] = [entry for entry in sys.path if not _is_ours(entry)]
    for name in [name for name in sys.modules if name.split(".")[0] == "reward"]:
        del sys.modules[name]
    atexit._clear()
    builtins.__dict__.pop("_", None)
    os.chdir("/")


def _is_ours(entry: str) -> bool:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return entry in ("", root)


class Zygote:
    """Answers requests, one at a time."""

    def __init__(self, sock: socket.socket, walls: isolation.Walls, record: runner.Record) -> None:
        self.sock = sock
        self.walls = walls
        self.record = record
        self.ready = os.pipe()
        os.set_blocking(self.ready[0], False)

    def answer(self, request: Request) -> None:
        results: list[tuple[int, RunResult]] = []
        for group in request.groups:
            results += zip(group, self.run_group(request, group), strict=True)
        header = {"results": [[i, int(r.end), r.detail, r.cpu_s] for i, r in results]}
        wire.send(self.sock, header, [r.output for _, r in results])

    def run_group(self, request: Request, group: list[int]) -> list[RunResult]:
        """Run one group in one process; an infrastructure failure is End.BROKEN for all of it."""
        fds: list[int] = []
        try:
            files = [self._files(request.inputs[i], fds) for i in group]
            sink = os.memfd_create("sink")
            fds.append(sink)
            self.record.clear()
            pid = os.fork()
            if pid == 0:
                self._child(request, files, sink)
            death = self._wait(pid, request.limits)
            return self._results(request.limits, [out for _, out in files], sink, death)
        except OSError as error:
            return [RunResult(End.BROKEN, str(error), 0.0, b"")] * len(group)
        finally:
            for fd in fds:
                os.close(fd)

    def _files(self, data: bytes, fds: list[int]) -> tuple[int, int]:
        pair = []
        for content in (data, b""):
            fd = os.memfd_create("file")
            fds.append(fd)
            pair.append(fd)
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
        os.lseek(pair[0], 0, os.SEEK_SET)
        return pair[0], pair[1]

    def _child(self, request: Request, files: list[tuple[int, int]], sink: int) -> None:
        try:
            isolation.die_with_parent()
            self.sock.close()
            os.dup2(sink, 2)
            isolation.confine(self.walls, request.limits, request.limits.cpu_s)
            os.write(self.ready[1], b"i")
            os.close(self.ready[0])
            os.close(self.ready[1])
            runner.run_group(request.kind, request.code, request.entry, files, sink, self.record)
        finally:
            os._exit(70)

    def _wait(self, pid: int, limits: wire.Limits) -> "Death":
        """Wait for the group's process, at most its limits.

        Limits are on the whole process: no test of a group can have exceeded them if the group
        did not, whatever the program makes its runner believe.
        """
        start, timed_out = time.monotonic(), False
        clock = (~pid << 3) | 2  # the CPU clock of another process, see clock_getcpuclockid(3)
        handle = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            poller.register(self.sock, select.POLLRDHUP)
            while True:
                wall_s, cpu_s = time.monotonic() - start, _cpu_seconds(clock)
                left_s = _time_left(limits, wall_s, cpu_s)
                if left_s <= 0:
                    timed_out = True
                    break
                events = poller.poll(left_s * 1000 + 1)
                if any(fd != handle for fd, _ in events):
                    os.kill(pid, signal.SIGKILL)
                    os._exit(0)  # the judge is gone
                if events:
                    break
        finally:
            os.close(handle)
        if timed_out:
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        exit_code, cpu_s = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        over_cpu = exit_code in _CPU_SIGNALS and cpu_s >= limits.cpu_s
        return Death(self._was_isolated(), exit_code, timed_out or over_cpu, cpu_s)

    def _was_isolated(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self.ready[0], 64))
        return False

    def _results(
        self, limits: wire.Limits, outputs: list[int], sink: int, death: "Death"
    ) -> list[RunResult]:
        phase, current = self.record.phase, self.record.position
        results = []
        for position, fd in enumerate(outputs):
            end, detail = self.record.read(position)
            if not death.isolated:
                end, detail = End.BROKEN, f"isolation failed, exit status {death.exit_code}"
            elif end == End.NOT_RUN and position == current and phase != runner.PHASE_DONE:
                end, detail = death.explain(phase)
            elif phase >= runner.PHASE_RUNNING and end not in _RECORDED:
                end = End.EXCEPTION  # forged
            size = os.fstat(fd).st_size
            if end != End.NOT_RUN and max(size, os.fstat(sink).st_size) >= limits.output_bytes:
                end, detail = End.OUTPUT, f"more than {limits.output_bytes} bytes written"
            output = os.pread(fd, size, 0) if end == End.OK else b""
            results.append(RunResult(End(end), detail, death.cpu_s, output))
        return results


@dataclass(frozen=True)
class Death:
    """How a program's process ended.

    `isolated` came through a pipe that was closed before the program was compiled, so that no
    program can pass its own failure off as the sandbox's.
    """

    isolated: bool
    exit_code: int
    over_cpu: bool
    cpu_s: float

    def explain(self, phase: int) -> tuple[End, str]:
        """What it says about the test that was running."""
        if phase == runner.PHASE_COMPILING:
            return End.COMPILE, "time limit" if self.over_cpu else _name(self.exit_code)
        if self.over_cpu:
            return End.TIME, ""
        if self.exit_code == 0:
            return End.OK, ""
        if self.exit_code == -signal.SIGKILL:
            return End.BROKEN, "killed from outside"
        return End.EXCEPTION, _name(self.exit_code)


def _cpu_seconds(clock: int) -> float:
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0  # the process has just ended


def _time_left(limits: wire.Limits, wall_s: float, cpu_s: float) -> float:
    """Seconds until the next look; not above zero where a limit is reached.

    A program that computes but is starved of CPU by its neighbours is not cut off by the wall
    clock: that limit is for programs that sleep.
    """
    busy = cpu_s > wall_s / 8
    wall_limit_s = limits.wall_s * 8 if busy else limits.wall_s
    return min(limits.cpu_s - cpu_s, wall_limit_s - wall_s)


def _name(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"

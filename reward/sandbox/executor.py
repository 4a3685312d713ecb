"""Forks, feeds, times and reaps the processes of one request. Runs in the zygote.

The processes it forks lock themselves in before they compile anything. What they report through
shared memory is believed only where it lowers the verdict.
"""

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from reward.sandbox import checker, isolation, runner, wire
from reward.sandbox.process import (
    Death,
    Files,
    cpu_seconds,
    death_of,
    end_orphans,
    keep_only,
    memory_files,
    time_left,
)
from reward.sandbox.wire import End, Kind, Limits, Request, RunResult

# What a process may say of a test by the phase it says it is in.
_RECORDED = {
    runner.PHASE_COMPILING: (End.NOT_RUN, End.COMPILE),
    runner.PHASE_RUNNING: (End.NOT_RUN, End.OK, End.EXCEPTION, End.MEMORY),
    runner.PHASE_DONE: (End.NOT_RUN, End.OK, End.EXCEPTION, End.MEMORY),
}


class Executor:
    """Answers requests, one at a time."""

    def __init__(self, sock: socket.socket, walls: isolation.Walls, record: runner.Record) -> None:
        self.sock = sock
        self.walls = walls
        self.record = record
        self.ready = os.pipe()
        os.set_blocking(self.ready[0], False)

    def answer(self, request: Request) -> None:
        """Run all groups of a request and send the results."""
        results: list[tuple[int, RunResult]] = []
        for group in request.groups:
            results += zip(group, self._run_group(request, group), strict=True)
        header = {"results": [[i, int(r.end), r.detail, r.cpu_s] for i, r in results]}
        wire.send(self.sock, header, [r.output for _, r in results])

    def _run_group(self, request: Request, group: list[int]) -> list[RunResult]:
        """Run one group in one process; an infrastructure failure is End.BROKEN for all of it."""
        self.record.clear()
        run = self._check if request.kind == Kind.CHECK else self._program
        try:
            with memory_files([request.inputs[index] for index in group]) as files:
                return run(request, files)
        except OSError as error:
            return [RunResult(End.BROKEN, str(error), 0.0, b"")] * len(group)

    def _program(self, request: Request, files: Files) -> list[RunResult]:
        def body() -> None:
            runner.run_group(
                request.kind, request.code, request.entry, files.pairs, files.sink, self.record
            )

        (death,) = self._supervise([self._fork(request.limits, files.sink, body)], request.limits)
        return [
            self._result(position, fd, files.sink, request.limits, death)
            for position, (_, fd) in enumerate(files.pairs)
        ]

    def _result(
        self, position: int, output_fd: int, sink: int, limits: Limits, death: Death
    ) -> RunResult:
        phase = self.record.phase
        end, detail = self.record.read(position)
        if not death.isolated:
            end, detail = End.BROKEN, f"isolation failed, exit status {death.exit_code}"
        elif end == End.NOT_RUN and position == self.record.position and phase < runner.PHASE_DONE:
            end, detail = death.explain(phase)
        elif end not in _RECORDED.get(phase, ()):
            end = End.EXCEPTION  # forged
        size = os.fstat(output_fd).st_size
        if end != End.NOT_RUN and max(size, os.fstat(sink).st_size) >= limits.output_bytes:
            end, detail = End.OUTPUT, f"more than {limits.output_bytes} bytes written"
        output = os.pread(output_fd, size, 0) if end == End.OK else b""
        return RunResult(End(end), detail, death.cpu_s, output)

    def _check(self, request: Request, files: Files) -> list[RunResult]:
        """One test program and the candidate, each in a process of its own."""
        ((input_fd, output_fd),) = files.pairs
        ends = socket.socketpair()

        def serve() -> None:
            os.dup2(input_fd, 0)
            (fd,) = keep_only(ends[0].detach())
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
            checker.serve_candidate(request.code, sock, self.record)

        def check() -> None:
            fd, output = keep_only(ends[1].detach(), output_fd)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
            checker.run_checker(request.inputs[0], request.entry, sock, output)

        with ends[0], ends[1]:
            candidate = self._fork(request.limits, files.sink, serve)
            test = self._fork(request.limits, files.sink, check)
        deaths = self._supervise([test, candidate], request.limits)
        end, detail = self._check_end(os.pread(output_fd, 4096, 0), *deaths)
        output = detail.encode() if end == End.OK else b""
        return [RunResult(end, detail, deaths[0].cpu_s + deaths[1].cpu_s, output)]

    def _check_end(self, outcome: bytes, test: Death, candidate: Death) -> tuple[End, str]:
        recorded, why = self.record.read(0)
        if not candidate.isolated:
            return End.BROKEN, "isolation failed"
        if self.record.phase <= runner.PHASE_COMPILING:
            return End.COMPILE, why or candidate.explain(runner.PHASE_COMPILING)[1]
        if candidate.over_cpu or test.over_cpu:
            return End.TIME, ""
        if not outcome:
            return test.explain(runner.PHASE_RUNNING)
        number, detail = json.loads(outcome)
        if number != End.EXCEPTION or detail != checker.DIED:
            return End(number), detail
        if recorded in (End.EXCEPTION, End.MEMORY):
            return End(recorded), why
        end, detail = candidate.explain(runner.PHASE_RUNNING)
        return (End.EXCEPTION if end == End.OK else end), detail

    def _fork(self, limits: Limits, sink: int, body: Callable[[], None]) -> int:
        """The process ID of a confined child that runs `body`, which never returns."""
        pid = os.fork()
        if pid:
            return pid
        try:
            isolation.die_with_parent()
            self.sock.close()
            os.dup2(sink, 2)
            isolation.confine(self.walls, limits, limits.cpu_s)
            os.write(self.ready[1], b"i")
            os.close(self.ready[0])
            os.close(self.ready[1])
            body()
        finally:
            os._exit(70)

    def _supervise(self, pids: list[int], limits: Limits) -> list[Death]:
        """Wait for the first process, at most the limits, end all of them, and say how they died.

        Limits are on whole processes: no test of a group can have exceeded them if the group did
        not, whatever the program makes its runner believe.
        """
        handles = [os.pidfd_open(pid) for pid in pids]
        timed_out = self._wait(handles[0], pids, limits)
        deaths = []
        for pid, handle in zip(pids, handles, strict=True):
            alive = not select.select([handle], [], [], 0)[0]
            if alive:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
            _, status, usage = os.wait4(pid, 0)
            deaths.append(
                death_of(status, usage, ended_by_us=alive, timed_out=timed_out, limits=limits)
            )
        if self.walls.seccomp_filter is None:
            end_orphans()
        isolated = self._isolated_count() == len(pids)
        return [replace(death, isolated=isolated) for death in deaths]

    def _wait(self, handle: int, pids: list[int], limits: Limits) -> bool:
        """Wait for the process behind `handle`; whether a limit came first."""
        start = time.monotonic()
        clocks = [(~pid << 3) | 2 for pid in pids]  # CPU clocks, see clock_getcpuclockid(3)
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        poller.register(self.sock, select.POLLRDHUP)
        while True:
            cpu_s = [cpu_seconds(clock) for clock in clocks]
            left_s = time_left(limits, time.monotonic() - start, cpu_s)
            if left_s <= 0:
                return True
            events = poller.poll(left_s * 1000 + 1)
            if any(fd != handle for fd, _ in events):
                os._exit(0)  # the judge is gone; our children die with us
            if events:
                return False

    def _isolated_count(self) -> int:
        """How many processes have reported that their walls are up, since last asked.

        It comes through a pipe that is closed before the program is compiled, so that no program
        can pass its own failure off as the sandbox's.
        """
        with contextlib.suppress(BlockingIOError):
            return len(os.read(self.ready[0], 64))
        return 0

"""Forks, feeds, times and reaps the processes of one request. Runs in the zygote.

The processes it forks lock themselves in before they compile anything. The executor handles files
of code, inputs and outputs by their descriptors and reads none of them: the next program is forked
from this memory.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, replace

from reward.sandbox import checker, isolation, runner, scorer, threads, wire
from reward.sandbox.packages import PackageFinder
from reward.sandbox.process import (
    Files,
    Page,
    close_but,
    cpu_seconds,
    death_of,
    end_orphans,
    gather,
    memory_files,
    time_left,
)
from reward.sandbox.wire import Death, Kind, Limits, Order

_NOWHERE = 1  # the zygote's own standard output


class Executor:
    """Answers requests, one at a time."""

    def __init__(
        self, sock: socket.socket, walls: isolation.Walls, page: Page, support: PackageFinder
    ) -> None:
        self.sock = sock
        self.walls = walls
        self.page = page
        self.support = support  # finds what only test programs may import
        self.ready = os.pipe()
        os.set_blocking(self.ready[0], False)

    def answer(self, order: Order) -> None:
        """Carry out an order and send what is left of it; where that fails, the reason."""
        self.page.record.clear()
        try:
            with memory_files(order) as files:
                deaths = self._run(order, files)
                outputs = [output for _, output in files.pairs]
                if order.kind == Kind.RUN:
                    outputs.append(files.sink)
                result, sizes = gather(self.page, outputs, order.limits.output_bytes)
                sink = os.fstat(files.sink).st_size
        except OSError as error:
            wire.send_message(self.sock, {"broken": str(error)})
            return
        header = {"deaths": [astuple(d) for d in deaths], "outputs": sizes, "sink": sink}
        try:
            wire.send_message(self.sock, header, [result])
        finally:
            os.close(result)

    def _run(self, order: Order, files: Files) -> list[Death]:
        if order.kind == Kind.CHECK:
            return self._check(order, files)
        record = self.page.record

        def body() -> None:
            if order.kind == Kind.SCORE:
                scorer.score_cases(order, files.pairs, files.sink)
            runner.run_group(order, files.pairs, files.sink, record)

        return self._supervise([self._fork(order.limits, files.sink, body)], order.limits)

    def _check(self, order: Order, files: Files) -> list[Death]:
        """The candidate and the test program, each in a process of its own.

        The test comes in a second message, for which this process asks only when the candidate's
        has been forked: so that has never had the test, not even as a descriptor. Nor do they
        share a standard error, on which a test may print what it expects. The candidate's streams
        are opened anew, since flags and locks stay with an open file.
        """
        ((_, output_fd),) = files.pairs
        ends = socket.socketpair()
        nothing = os.open(os.devnull, os.O_RDWR)

        def serve() -> None:
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
            content, fd = close_but(order.content, ends[0].detach())
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
            checker.serve_candidate(content, order.code_bytes, sock, self.page.record)

        with ends[0], ends[1]:
            candidate = self._fork(order.limits, files.sink, serve)
            os.close(nothing)
            _, (test_fd,) = wire.receive_message(self.sock)

            def check() -> None:
                sys.meta_path.append(self.support)
                test_content, output, fd = close_but(test_fd, output_fd, ends[1].detach())
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
                checker.run_checker(test_content, order.entry, sock, output)

            ruleset_fd = self.walls.checker_ruleset_fd
            test = self._fork(order.limits, _NOWHERE, check, ruleset_fd)
            os.close(test_fd)
        return self._supervise([test, candidate], order.limits)

    def _fork(
        self, limits: Limits, sink: int, body: Callable[[], None], ruleset_fd: int | None = None
    ) -> int:
        """The process ID of a confined child that runs `body`, which never returns.

        Its ruleset is that for programs unless another is given.
        """
        pid = os.fork()
        if pid:
            return pid
        try:
            isolation.die_with_parent()
            self.sock.close()
            os.close(self.page.fd)
            os.dup2(sink, 2)
            threads.clamp_stack_sizes(limits.memory_bytes)
            ruleset_fd = self.walls.ruleset_fd if ruleset_fd is None else ruleset_fd
            isolation.confine(self.walls, limits, ruleset_fd)
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

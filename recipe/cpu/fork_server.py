"""One process that imports the training stack once and forks every process of a run from it.

A training on one machine is about fifteen Python processes, each of which imports Ray, torch,
Transformers, verl and vLLM: ten seconds of computing apiece, most of a short run on two cores. The
server imports them once; `forked_python.py` asks it for a process, which starts in milliseconds and
shares the memory of the modules. Nothing is initialised before a fork: no Ray connection, no
process group, no engine, no thread pool.

`launch.fork_server` starts it as `python -m recipe.cpu.fork_server SOCKET OWNER MODULE…`, where the
first two are file descriptors. The server belongs to the process that starts it and ends with it,
so it never outlives the source files that it has imported.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy

from recipe.cpu import environment
from recipe.cpu.forked_python import ACCEPTED, STATUS_BYTES, read_request
from recipe.cpu.startup import collect_rarely

RAY_JOB_ID = "01000000"
"""The first job of a cluster, in Ray's hexadecimal form."""

READ_AT_IMPORT = ("PYTHONPATH", "PYTHONHOME", *environment())
"""Variables that imported modules may have read: a process that needs others is not forked."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Request:
    """A process that a client asks for.

    Attributes:
        arguments: of the interpreter. variables: its environment. folder: where it runs.
        streams: file descriptors of its standard input, output and error.
    """

    arguments: list[str]
    variables: dict[str, str]
    folder: str
    streams: list[int]


class ForkServer:
    """Forks a process for each request on a listening socket, until its owner has ended.

    Args:
        listener: the socket. owner: file descriptor that is closed when the owner ends.
    """

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self._listener = listener
        self._owner = owner
        self._variables = {key: os.environ.get(key) for key in READ_AT_IMPORT}
        self._selector = selectors.DefaultSelector()
        self._request: Request | None = None

    def run(self) -> Request | None:
        """Serve until the owner has ended: None. In each forked process: what it is to become."""
        self._selector.register(self._owner, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        while True:
            # One event at a time: each may undo the next, as the end of a process a signal to it.
            key = self._selector.select()[0][0]
            if key.data is None:
                return None
            key.data()
            if self._request is not None:
                return self._request

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        request = _received(connection)
        if request is None:
            connection.close()
            return
        if self._has_imported_for(request.variables):
            self._fork(connection, request)
        else:
            connection.close()
        if self._request is None:
            for stream in request.streams:
                os.close(stream)

    def _has_imported_for(self, variables: Mapping[str, str]) -> bool:
        job = variables.get("RAY_JOB_ID", RAY_JOB_ID)
        return job == RAY_JOB_ID and all(
            variables.get(key) == value for key, value in self._variables.items()
        )

    def _fork(self, connection: socket.socket, request: Request) -> None:
        pid = os.fork()
        if pid == 0:
            self._request = request
            for opened in self._selector.get_map().values():
                os.close(opened.fd)
            self._selector.close()
            os.close(connection.fileno())
            for closed in (self._listener, connection):
                closed.detach()
            return
        with suppress(OSError):  # A client that is gone already is found out by `_forward`.
            connection.sendall(ACCEPTED)
        handle = os.pidfd_open(pid)
        self._selector.register(
            handle, selectors.EVENT_READ, partial(self._end, pid, handle, connection)
        )
        self._selector.register(
            connection, selectors.EVENT_READ, partial(self._forward, pid, connection)
        )

    def _forward(self, pid: int, connection: socket.socket) -> None:
        """Send the process the signal that its client got; kill it if the client is gone."""
        received = b""
        with suppress(OSError):
            received = connection.recv(1)
        os.kill(pid, received[0] if received else signal.SIGKILL)
        if not received:
            self._selector.unregister(connection)

    def _end(self, pid: int, handle: int, connection: socket.socket) -> None:
        """Tell the client how the process ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._selector.unregister(handle)
        os.close(handle)
        with suppress(KeyError):  # Not registered any more if the client is gone.
            self._selector.unregister(connection)
        with suppress(OSError):
            connection.sendall((code if code >= 0 else 128 - code).to_bytes(STATUS_BYTES, "big"))
        connection.close()


def _received(connection: socket.socket) -> Request | None:
    """The request of a client; None if it ended too early."""
    try:
        size, streams, _, _ = socket.recv_fds(connection, STATUS_BYTES, 3)
        received = connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
        return Request(*read_request(received), streams)
    except (OSError, ValueError):
        return None


def become(request: Request) -> None:
    """Turn this forked process into `python ARGUMENTS`, and run it to its end."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for target, stream in enumerate(request.streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.variables)
    if ray := sys.modules.get("ray._raylet"):
        ray.Config.initialize("")  # It reads its other variables, such as how to authenticate.
    numpy.random.seed()  # Python's own generator is seeded anew after every fork.
    sys.orig_argv = [sys.executable, *request.arguments]
    name, *rest = request.arguments
    if name == "-m":
        sys.path[0] = request.folder
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(name).parent)
        sys.argv = [name, *rest]
        runpy.run_path(name, run_name="__main__")


@contextmanager
def _printed_on_failure() -> Iterator[None]:
    """Hold back what is written to standard error: only a failure in the block prints it.

    The imports warn of every optional package that is not installed.
    """
    shown = os.dup(sys.stderr.fileno())
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), sys.stderr.fileno())
        try:
            yield
        except BaseException:
            held.seek(0)
            with suppress(OSError):
                os.write(shown, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown, sys.stderr.fileno())
            os.close(shown)


def main() -> None:
    """Import the modules of the command line, then serve."""
    listener, owner = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    # Ray's library keeps these two as they were when it was loaded. A worker ends when its raylet's
    # process does: here the server stands for it, whose client watches the raylet.
    os.environ |= {"RAY_JOB_ID": RAY_JOB_ID, "RAY_RAYLET_PID": str(os.getpid())}
    with _printed_on_failure():
        for module in sys.argv[3:]:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()
    request = ForkServer(listener, owner).run()
    if request is not None:
        become(request)


if __name__ == "__main__":
    collect_rarely()
    main()

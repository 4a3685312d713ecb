"""What the judge, a zygote and the processes below it say to each other.

Between judge and zygote go messages: a small JSON header and descriptors of memory files. Whatever
a problem or a program holds is in such files, which the zygote passes on and never reads, so that
nothing of one program is left in the memory from which the next is forked. Between a candidate and
the checker of its assertions go frames of JSON. Nothing here is ever unpickled.
"""

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

PASSED = "passed"  # the outcome of a CHECK test without a failed assertion
DIED = "died"  # the outcome where the candidate's process ended in the middle of a call

_HEADER = struct.Struct("<I")
_MAX_FRAME_BYTES = 64 << 20
_MESSAGE_BYTES = 65536
_MESSAGE_FDS = 4
_CONGESTED_S = 0.001


class Level(IntEnum):
    """How much isolation the machine gives; see docs/judge.md."""

    NONE = 0  # rlimits and a separate process tree only
    SECCOMP = 1  # + system-call filter
    LANDLOCK = 2  # + file-system and signal scope
    FULL = 3  # + user, PID, network, IPC and mount namespaces


class End(IntEnum):
    """How one test's run ended, before anything is compared."""

    NOT_RUN = 0
    OK = 1  # ran to its end with exit status zero
    EXCEPTION = 2
    COMPILE = 3
    TIME = 4
    MEMORY = 5
    OUTPUT = 6
    BROKEN = 7  # the infrastructure failed, not the program
    PROBLEM = 8  # the problem's own code failed, not the program


class Kind(IntEnum):
    """What the tests of a request feed and collect."""

    STDIO = 0  # input: stdin; output: stdout
    CALL = 1  # input: JSON list of arguments; output: JSON of the result
    CHECK = 2  # input: the test program, run apart from the candidate; output: its outcome
    RUN = 4  # input: stdin; output: stdout, and what was written to stderr, tracebacks included
    SCORE = 3  # input: JSON of a case for the problem's own `check`; output: what that says


@dataclass(frozen=True)
class Limits:
    """Limits of one process.

    Attributes:
        cpu_s: CPU time.
        wall_s: wall time of a process that waits; one that computes has more.
        total_s: wall time, whatever it does.
    """

    cpu_s: float
    wall_s: float
    total_s: float
    memory_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class Death:
    """How a process ended, as the kernel says."""

    isolated: bool
    exit_code: int
    over_time: bool
    ended_by_us: bool
    cpu_s: float

    @property
    def clean(self) -> bool:
        """Whether the process ended by itself with status zero, within its limits."""
        return self.exit_code == 0 and not self.over_time


@dataclass(frozen=True)
class Request:
    """Run a program in one process, once per input, in order.

    The judge's side of it; `parts` are the contents of the file that goes with the header.
    """

    kind: Kind
    code: bytes
    inputs: list[bytes]
    limits: Limits
    entry: str = ""

    def header(self) -> dict[str, Any]:
        return {
            "kind": int(self.kind),
            "sizes": [len(self.code), *map(len, self.inputs)],
            "limits": asdict(self.limits),
            "entry": self.entry,
        }


@dataclass(frozen=True)
class Order:
    """The zygote's side of a request: sizes of the code and of the inputs, and their file."""

    kind: Kind
    code_bytes: int
    input_bytes: list[int]
    limits: Limits
    entry: str
    content: int

    @classmethod
    def parse(cls, header: dict[str, Any], content: int) -> "Order":
        code_bytes, *input_bytes = header["sizes"]
        return cls(
            kind=Kind(header["kind"]),
            code_bytes=code_bytes,
            input_bytes=input_bytes,
            limits=Limits(**header["limits"]),
            entry=header["entry"],
            content=content,
        )


class ConnectionLost(Exception):
    """The other side closed the connection, sent nonsense, or missed the deadline."""


def memory_file(parts: Iterable[bytes] = ()) -> int:
    """The descriptor of a new memory file that holds `parts`, one after another."""
    fd = os.memfd_create("file", os.MFD_CLOEXEC)
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def send_message(sock: socket.socket, header: dict[str, Any], fds: Iterable[int] = ()) -> None:
    """Send a message with descriptors, which stay open here; raises OSError as the socket does."""
    data = json.dumps(header).encode()
    while True:
        try:
            socket.send_fds(sock, [data], list(fds))
            return
        except OSError as error:  # the user's descriptors that are under way are limited
            if error.errno != errno.ETOOMANYREFS:
                raise
            time.sleep(_CONGESTED_S)


def receive_message(
    sock: socket.socket, deadline_s: float | None = None
) -> tuple[dict[str, Any], list[int]]:
    """Receive a message; the descriptors are the caller's to close.

    Args:
        deadline_s: a `time.monotonic()` instant.

    Raises:
        ConnectionLost: end of file, a malformed message, or the deadline.
    """
    if deadline_s is not None:
        sock.settimeout(max(0.001, deadline_s - time.monotonic()))
    try:
        data, fds, _, _ = socket.recv_fds(sock, _MESSAGE_BYTES, _MESSAGE_FDS)
    except TimeoutError as error:
        raise ConnectionLost("no answer within the deadline") from error
    except OSError as error:
        raise ConnectionLost(str(error)) from error
    if not data:
        raise ConnectionLost("connection closed")
    return json.loads(data), fds


def send_frame(sock: socket.socket, frame: dict[str, Any]) -> None:
    """Send one frame; raises OSError as the socket does."""
    data = json.dumps(frame).encode()
    sock.sendall(_HEADER.pack(len(data)) + data)


def receive_frame(sock: socket.socket) -> dict[str, Any]:
    """Receive one frame, which an untrusted process may have written.

    Raises:
        ConnectionLost: end of file, an oversized or malformed frame.
    """
    (size,) = _HEADER.unpack(_exactly(sock, _HEADER.size))
    if size > _MAX_FRAME_BYTES:
        raise ConnectionLost(f"frame of {size} bytes")
    try:
        frame = json.loads(_exactly(sock, size))
    except (ValueError, RecursionError) as error:
        raise ConnectionLost(f"malformed frame: {error}") from error
    if not isinstance(frame, dict):
        raise ConnectionLost("malformed frame: not an object")
    return frame


def _exactly(sock: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        try:
            count = sock.recv_into(view[got:])
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        if count == 0:
            raise ConnectionLost("connection closed")
        got += count
    return data

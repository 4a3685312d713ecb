"""What the judge and a zygote say to each other: one JSON header and raw blobs per frame.

The judge is trusted; the zygote runs no untrusted code itself, but its answers carry bytes that
programs wrote. Nothing here is ever unpickled.
"""

import json
import socket
import struct
import time
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

PASSED = "passed"  # the output of a CHECK test without a failed assertion

_HEADER = struct.Struct("<I")
_MAX_HEADER_BYTES = 64 << 20


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


class Kind(IntEnum):
    """What the tests of a request feed and collect."""

    STDIO = 0  # input: stdin; output: stdout
    CALL = 1  # input: JSON list of arguments; output: JSON of the result
    CHECK = 2  # input: the test program, run apart from the candidate; no output


@dataclass(frozen=True)
class Limits:
    """Limits of one test's run."""

    cpu_s: float
    wall_s: float
    memory_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class RunResult:
    """One test's run as the zygote saw it; `output` is the program's own, untrusted."""

    end: End
    detail: str
    cpu_s: float
    output: bytes


@dataclass(frozen=True)
class Request:
    """Run `code` on every input; each group of positions shares one process, in order."""

    kind: Kind
    code: bytes
    inputs: list[bytes]
    groups: list[list[int]]
    limits: Limits
    entry: str = ""

    def frame(self) -> tuple[dict[str, Any], list[bytes]]:
        header = {
            "kind": int(self.kind),
            "groups": self.groups,
            "limits": asdict(self.limits),
            "entry": self.entry,
        }
        return header, [self.code, *self.inputs]

    @classmethod
    def parse(cls, header: dict[str, Any], blobs: list[bytes]) -> "Request":
        return cls(
            kind=Kind(header["kind"]),
            code=blobs[0],
            inputs=blobs[1:],
            groups=header["groups"],
            limits=Limits(**header["limits"]),
            entry=header["entry"],
        )


class ConnectionLost(Exception):
    """The other side closed the connection, sent nonsense, or missed the deadline."""


def send(sock: socket.socket, header: dict[str, Any], blobs: list[bytes]) -> None:
    """Send one frame; raises OSError as the socket does."""
    head = json.dumps({"head": header, "sizes": [len(b) for b in blobs]}).encode()
    sock.sendall(b"".join([_HEADER.pack(len(head)), head, *blobs]))


def receive(
    sock: socket.socket, deadline_s: float | None = None, max_bytes: int = 1 << 40
) -> tuple[dict[str, Any], list[bytes]]:
    """Receive one frame.

    Args:
        deadline_s: a `time.monotonic()` instant.
        max_bytes: refuse blobs of more than this in all.

    Raises:
        ConnectionLost: end of file, an oversized or malformed frame, or the deadline.
    """
    (size,) = _HEADER.unpack(_exactly(sock, _HEADER.size, deadline_s))
    if size > _MAX_HEADER_BYTES:
        raise ConnectionLost(f"frame header of {size} bytes")
    try:
        frame = json.loads(_exactly(sock, size, deadline_s))
        header, sizes = frame["head"], frame["sizes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConnectionLost(f"malformed frame: {error}") from error
    if sum(sizes) > max_bytes:
        raise ConnectionLost(f"frame of {sum(sizes)} bytes, at most {max_bytes} expected")
    body = _exactly(sock, sum(sizes), deadline_s)
    blobs, start = [], 0
    for size in sizes:
        blobs.append(bytes(body[start : start + size]))
        start += size
    return header, blobs


def _exactly(sock: socket.socket, size: int, deadline_s: float | None) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        if deadline_s is not None:
            sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        try:
            count = sock.recv_into(view[got:])
        except TimeoutError as error:
            raise ConnectionLost("no answer within the deadline") from error
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        if count == 0:
            raise ConnectionLost("connection closed")
        got += count
    return data

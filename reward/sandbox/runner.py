"""Runs one program on its tests, inside the program's own process, after isolation.

Everything here shares an interpreter with untrusted code and is believed in nothing that could
raise a score: a program can forge how a test ended, but not outputs that it does not know.
Record layout (one shared page, zeroed by the zygote): byte 0 phase, byte 1 unused, bytes 2-3 the
position of the running test within its group, then per position one `End` byte and DETAIL_BYTES
of text.
"""

import _thread
import atexit
import contextlib
import gc
import json
import mmap
import os
import struct
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from reward.sandbox.codec import result_json
from reward.sandbox.preamble import call_namespace
from reward.sandbox.wire import End, Kind

DETAIL_BYTES = 47
SLOT_BYTES = 1 + DETAIL_BYTES
HEADER_BYTES = 4
PHASE_COMPILING, PHASE_RUNNING, PHASE_DONE = range(1, 4)
MAX_GROUP = 32
RECORD_BYTES = HEADER_BYTES + MAX_GROUP * SLOT_BYTES

_NEWLINES = {"r": None, "w": "\n"}


class Record:
    """The shared page through which a program's process says how far it is."""

    def __init__(self, page: mmap.mmap) -> None:
        self.page = page

    def clear(self) -> None:
        self.page[:RECORD_BYTES] = bytes(RECORD_BYTES)

    @property
    def phase(self) -> int:
        return self.page[0]

    @phase.setter
    def phase(self, value: int) -> None:
        self.page[0] = value

    @property
    def position(self) -> int:
        return struct.unpack_from("<H", self.page, 2)[0]

    @position.setter
    def position(self, value: int) -> None:
        struct.pack_into("<H", self.page, 2, value)

    def end(self, position: int, end: End, detail: str = "") -> None:
        start = HEADER_BYTES + position * SLOT_BYTES
        text = detail.encode("utf-8", "replace")[:DETAIL_BYTES].ljust(DETAIL_BYTES, b"\0")
        self.page[start : start + SLOT_BYTES] = bytes([end]) + text

    def read(self, position: int) -> tuple[int, str]:
        start = HEADER_BYTES + position * SLOT_BYTES
        slot = self.page[start : start + SLOT_BYTES]
        return slot[0], slot[1:].rstrip(b"\0").decode("utf-8", "replace")


def run_group(
    kind: Kind, source: bytes, entry: str, files: list[tuple[int, int]], sink: int, record: Record
) -> None:
    """Compile `source` and run it once per (input fd, output fd) of `files`; never returns.

    With several files the run stops, without a verdict for what is left, as soon as a test leaves
    something behind (threads) that would disturb the next.
    """
    record.phase = PHASE_COMPILING
    try:
        code = compile(source.decode("utf-8", "surrogatepass"), "<program>", "exec")
    except MemoryError:
        record.end(0, End.COMPILE, "MemoryError")
        os._exit(1)
    except (
        Exception
    ) as error:  # SyntaxError, ValueError (null bytes), RecursionError, OverflowError
        record.end(0, End.COMPILE, type(error).__name__)
        os._exit(1)
    del source
    record.phase = PHASE_RUNNING
    run = _run_stdio if kind == Kind.STDIO else _run_call
    alone = len(files) == 1
    for position, (input_fd, output_fd) in enumerate(files):
        record.position = position
        os.dup2(input_fd, 0)
        os.dup2(output_fd if kind == Kind.STDIO else sink, 1)
        if alone:
            output_fd = _keep_only(output_fd, kind)
        end, detail = run(code, entry, output_fd, alone or position == 0)
        record.end(position, end, detail)
        if end == End.MEMORY or _thread._count() > 0:
            break
    record.phase = PHASE_DONE
    os._exit(0)


def compile_program(source: bytes, record: Record) -> types.CodeType:
    """The compiled program; ends the process where it does not compile."""
    record.phase = PHASE_COMPILING
    try:
        code = compile(source.decode("utf-8", "surrogatepass"), "<program>", "exec")
    except Exception as error:  # SyntaxError, ValueError (null bytes), MemoryError, RecursionError
        record.end(0, End.COMPILE, type(error).__name__)
        os._exit(1)
    record.phase = PHASE_RUNNING
    return code


def _keep_only(output_fd: int, kind: Kind) -> int:
    """Close all descriptors but 0 to 2 and, for a result, one more, whose number is returned."""
    if kind == Kind.STDIO:
        os.closerange(3, 1024)
        return 1
    os.dup2(output_fd, 3)
    os.closerange(4, 1024)
    return 3


def _run_stdio(code: types.CodeType, entry: str, output_fd: int, thorough: bool) -> tuple[End, str]:
    return _guarded(lambda namespace: exec(code, namespace), {}, thorough)


def _run_call(code: types.CodeType, entry: str, output_fd: int, thorough: bool) -> tuple[End, str]:
    arguments = json.loads(_read_all(0))
    os.lseek(0, 0, os.SEEK_SET)

    def body(namespace: dict[str, Any]) -> None:
        exec(code, namespace)
        function = _callable(namespace, entry)
        encoded = result_json(function(*arguments)).encode("utf-8", "surrogatepass")
        os.ftruncate(output_fd, 0)
        os.pwrite(output_fd, encoded, 0)

    return _guarded(body, call_namespace(), thorough)


def _callable(namespace: dict[str, Any], entry: str) -> Callable[..., Any]:
    """The function `entry`, or that method of a fresh `Solution`."""
    solution = namespace.get("Solution")
    if isinstance(solution, type) and hasattr(solution, entry):
        return getattr(solution(), entry)
    return namespace[entry]


def _guarded(
    body: Callable[[dict[str, Any]], None], names: dict[str, Any], thorough: bool
) -> tuple[End, str]:
    """Run `body` as the interpreter would run a script: fresh `__main__` and streams, full exit.

    `thorough` also collects garbage, so that forgotten open files are flushed as at a real exit.
    """
    namespace = fresh_main(names)
    streams = fresh_streams()
    end, detail = End.OK, ""
    try:
        try:
            body(namespace)
        finally:
            _join_threads()
            atexit._run_exitfuncs()
    except SystemExit as error:
        if error.code is not None and (not isinstance(error.code, int) or error.code != 0):
            end, detail = End.EXCEPTION, "SystemExit"
    except MemoryError:
        end, detail = End.MEMORY, "MemoryError"
    except BaseException as error:  # whatever untrusted code raises
        end, detail = End.EXCEPTION, type(error).__name__
    try:
        _flush(streams)
        namespace.clear()
        if thorough:
            gc.collect()
    except BaseException as error:  # a replaced or closed stdout; __del__ of untrusted objects
        if end == End.OK:
            end, detail = End.EXCEPTION, type(error).__name__
    return end, detail


def fresh_main(names: dict[str, Any]) -> dict[str, Any]:
    """The namespace of a new `__main__` that holds `names`."""
    module = types.ModuleType("__main__")
    module.__dict__.update(names)
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    return module.__dict__


def fresh_streams() -> list[Any]:
    """Open sys.stdin, stdout and stderr anew on descriptors 0 to 2; returns what to flush."""

    def stream(fd: int, mode: str, errors: str, buffering: int = -1) -> Any:
        return open(  # left open, like the interpreter's own
            fd, mode, buffering, "utf-8", errors, newline=_NEWLINES[mode], closefd=False
        )

    sys.stdin = stream(0, "r", "surrogateescape")
    sys.stdout = stream(1, "w", "strict")
    sys.stderr = stream(2, "w", "backslashreplace", buffering=1)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    return [sys.stdout]


def _flush(streams: list[Any]) -> None:
    current = sys.stdout
    if current is not None and current is not streams[0]:
        with contextlib.suppress(AttributeError, ValueError):
            current.flush()
    if not streams[0].closed:
        streams[0].flush()


def _join_threads() -> None:
    current = threading.current_thread()
    for thread in threading.enumerate():
        if thread is not current and not thread.daemon:
            thread.join()


def _read_all(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)

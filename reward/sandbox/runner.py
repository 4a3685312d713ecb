"""Runs one program on its tests, inside the program's own process, after isolation.

Everything here shares an interpreter with untrusted code and is believed in nothing that could
raise a score: a program can forge how a test ended, but not outputs that it does not know.
"""

import _thread
import atexit
import contextlib
import gc
import json
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from reward.sandbox.codec import result_json
from reward.sandbox.preamble import call_namespace
from reward.sandbox.process import read_all
from reward.sandbox.record import PHASE_COMPILING, PHASE_DONE, PHASE_RUNNING, Record
from reward.sandbox.wire import End, Kind, Order

PROGRAM_FILE = "/program.py"

_NEWLINES = {"r": None, "w": "\n"}


def run_group(order: Order, files: list[tuple[int, int]], sink: int, record: Record) -> NoReturn:
    """Compile the program and run it once per (input fd, output fd) of `files`.

    With several files the run stops, without a verdict for what is left, as soon as a test leaves
    something behind (threads) that would disturb the next.
    """
    code = compile_program(order.content, order.code_bytes, record)
    run = _RUNS[order.kind]
    called = order.kind == Kind.CALL
    alone = len(files) == 1
    for position, (input_fd, output_fd) in enumerate(files):
        record.move_to(position)
        os.dup2(input_fd, 0)
        os.dup2(sink if called else output_fd, 1)
        if alone:
            output_fd = _close_others(output_fd if called else 1)
        end, detail = run(code, order.entry, output_fd, alone or position == 0)
        if not alone and (noise := os.fstat(sink).st_size) > 0:
            empty(sink)
            if noise >= order.limits.output_bytes:
                end, detail = End.OUTPUT, "too much written beside the output"
        record.end(position, end, detail)
        if end == End.MEMORY or _thread._count() > 0:
            break
    record.enter(PHASE_DONE)
    os._exit(0)


def compile_program(content: int, code_bytes: int, record: Record) -> types.CodeType:
    """The compiled program, whose source the file starts with; else ends the process."""
    record.enter(PHASE_COMPILING)
    try:
        source = os.pread(content, code_bytes, 0).decode("utf-8", "surrogatepass")
        code = compile(source, "<program>", "exec")
    except Exception as error:  # SyntaxError, ValueError (null bytes), MemoryError, RecursionError
        record.end(0, End.COMPILE, type(error).__name__)
        os._exit(1)
    record.enter(PHASE_RUNNING)
    return code


def empty(sink: int) -> None:
    """Forget what earlier tests wrote beside their outputs: the limit is each test's own."""
    os.ftruncate(sink, 0)
    os.lseek(sink, 0, os.SEEK_SET)


def _close_others(output_fd: int) -> int:
    """Close all descriptors but 0 to 2 and, for a result, one more, whose number is returned."""
    if output_fd <= 2:
        os.closerange(3, 1024)
        return output_fd
    os.dup2(output_fd, 3)
    os.closerange(4, 1024)
    return 3


def _run_stdio(code: types.CodeType, entry: str, output_fd: int, thorough: bool) -> tuple[End, str]:
    return _guarded(lambda namespace: exec(code, namespace), {}, thorough)


def _run_traced(
    code: types.CodeType, entry: str, output_fd: int, thorough: bool
) -> tuple[End, str]:
    def body(namespace: dict[str, Any]) -> None:
        try:
            exec(code, namespace)
        except Exception as error:
            own = error.__traceback__.tb_next if error.__traceback__ else None
            traceback.print_exception(type(error), error, own)
            raise

    return _guarded(body, {}, thorough)


def _run_call(code: types.CodeType, entry: str, output_fd: int, thorough: bool) -> tuple[End, str]:
    arguments = json.loads(read_all(0))

    def body(namespace: dict[str, Any]) -> None:
        exec(code, namespace)
        function = _callable(namespace, entry)
        encoded = result_json(function(*arguments)).encode("utf-8", "surrogatepass")
        os.ftruncate(output_fd, 0)
        os.pwrite(output_fd, encoded, 0)

    return _guarded(body, call_namespace(), thorough)


_RUNS = {Kind.STDIO: _run_stdio, Kind.RUN: _run_traced, Kind.CALL: _run_call}


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
        _finish(namespace, streams, thorough)
    except BaseException as error:  # a replaced or closed stdout; __del__ of untrusted objects
        if end == End.OK:
            end, detail = End.EXCEPTION, type(error).__name__
    return end, detail


def _finish(namespace: dict[str, Any], streams: list[Any], thorough: bool) -> None:
    """End as the interpreter does: flush, destroy what the program made, flush what that printed.

    The latest names go first, so that destructors still find the modules and classes they use.
    """
    _flush(streams)
    sys.stdout = streams[0]
    while namespace:
        namespace.popitem()
    if thorough:
        gc.collect()
    if not streams[0].closed:
        streams[0].flush()


def fresh_main(names: dict[str, Any], name: str = "__main__") -> dict[str, Any]:
    """The namespace of a new main module that holds `names`."""
    module = types.ModuleType(name)
    module.__dict__.update(names)
    module.__dict__.update(__builtins__=__builtins__, __file__=PROGRAM_FILE, __cached__=None)
    sys.modules[name] = module
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

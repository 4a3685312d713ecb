"""The process that programs are forked from: exec'd, warm, and ignorant of every expected output.

    judge ──socket──> zygote ──fork──> program's process (confined, then compiles and runs)

The zygote imports what contest programs import, once; passes inputs and outputs on as memory
files, of which it reads none; enforces time; and says how each process ended. At Level.FULL it is
process 1 of its PID namespace, below a launcher that only waits.

Run as `python -S -s -c BOOT <socket fd> <JSON options>`; see `client.py`.
"""

import atexit
import builtins
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import resource
import site
import socket
import sys
import threading
from typing import Any

from reward.sandbox import isolation, wire
from reward.sandbox.executor import Executor
from reward.sandbox.packages import PackageFinder
from reward.sandbox.process import Page
from reward.sandbox.wire import Level, Order

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
            wire.send_message(sock, {"retry_without_namespaces": str(error)})
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
    support = PackageFinder(options["support"])
    _import_packages(options["packages"])
    for name in _WARM:
        importlib.import_module(name)
    page = Page.create()
    level = Level(options["max_level"])
    walls = isolation.prepare(namespaced, options["packages"], options["support"], level)
    _forget_ourselves()
    gc.collect()
    gc.freeze()
    executor = Executor(sock, walls, page, support)
    wire.send_message(sock, {"level": int(walls.level)})
    while True:
        try:
            header, (content,) = wire.receive_message(sock)
        except wire.ConnectionLost:
            return
        try:
            executor.answer(Order.parse(header, content))
        finally:
            os.close(content)


def _import_packages(paths: dict[str, str]) -> None:
    sys.meta_path.append(PackageFinder(paths))
    for name in paths:
        if importlib.util.find_spec(name) is not None:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    if "numpy.random" in sys.modules:  # Python's own does this by itself
        os.register_at_fork(after_in_child=sys.modules["numpy.random"].seed)


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

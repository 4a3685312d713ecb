"""How a CPU run starts: its environment, set before verl is imported, and its fork server."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from recipe.cpu import CLUSTER_VARIABLE, environment
from recipe.cpu.forked_python import SOCKET_VARIABLE

MODULES = (
    "numpy",
    "ray._private.workers.default_worker",
    "torch",
    "transformers",
    "verl.trainer.main_ppo",
    "verl.experimental.reward_loop",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "vllm.v1.engine.async_llm",
    "vllm.v1.worker.cpu_worker",
    "vllm.entrypoints.openai.api_server",
    "hydra",
    "recipe.online_refiner.preflight.report",
    "recipe.online_refiner.run.folder",
    "recipe.online_refiner.runner",
    "recipe.online_refiner.modes",
    "recipe.online_refiner.agent_loop",
)
"""What the processes of a training import."""

MOST_WAITING = 64
GRACE_S = 20.0
"""What a session may take to end before it is killed."""


def prepared() -> AbstractContextManager[None]:
    """What a CPU run needs around its training (`run.launcher` in cpu_debug.yaml).

    The first call replaces the process; the second, in the environment that it has then, returns.
    """
    restart_with_environment()
    os.environ[CLUSTER_VARIABLE] = uuid.uuid4().hex[:12]
    return fork_server()


def restart_with_environment() -> None:
    """Replace this process by itself with the CPU environment; returns where it is set already.

    Variables that the caller has set are the caller's choice and stay as they are.
    """
    missing = {key: value for key, value in environment().items() if key not in os.environ}
    if missing:
        os.environ.update(missing)
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@contextmanager
def fork_server(modules: Sequence[str] = MODULES) -> Iterator[None]:
    """A fork server for the processes that are started in the block; an outer one is used again.

    `ONLINE_REFINER_FORK_SERVER=` (empty) in the environment turns it off.

    Args:
        modules: what it imports, in the environment of a CPU run; see `fork_server.py`.
    """
    if SOCKET_VARIABLE in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="fork-") as folder, _listening(folder) as listener:
        reads, writes = os.pipe()
        passed = [listener.fileno(), reads]
        server = subprocess.Popen(
            [sys.executable, "-m", "recipe.cpu.fork_server", *map(str, passed), *modules],
            env=environment() | os.environ,
            pass_fds=passed,
            start_new_session=True,
        )
        os.close(reads)
        os.environ[SOCKET_VARIABLE] = listener.getsockname()
        listener.close()
        try:
            yield
        finally:
            del os.environ[SOCKET_VARIABLE]
            os.close(writes)
            server.wait()


def _listening(folder: str) -> socket.socket:
    """Listens before there is a server, so that clients wait until it has made its imports."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(folder, "s"))
    listener.listen(MOST_WAITING)
    return listener


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End a process and its session; Ray takes its own processes down."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

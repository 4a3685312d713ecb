"""The judge's end of a zygote: start it, ask it, end it. One thread at a time uses a client."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from reward.sandbox import wire
from reward.sandbox.packages import installed
from reward.sandbox.results import Remains, RunResult, Score, results, scores
from reward.sandbox.wire import ConnectionLost, Death, End, Kind, Level, Request

_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = f"import sys; sys.path.insert(0, {_ROOT!r}); from reward.sandbox.zygote import main; main()"
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_START_DEADLINE_S = 60.0
_END_DEADLINE_S = 5.0
_SLACK_S = 10.0
_MESSAGE_BYTES = 4000


PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")
"""What a test program that imports pytest needs, if it is installed beside the judge."""


class SandboxError(RuntimeError):
    """The sandbox itself failed: a zygote died, did not answer, or could not be started."""


class IsolationError(SandboxError):
    """This machine does not give the isolation that was asked for."""


def package_paths(names: Iterable[str]) -> dict[str, str]:
    """Where the named third-party packages are installed; those that are not are left out.

    A folder, or the file of a module that is a single one.
    """
    paths: dict[str, str] = {}
    for name in names:
        spec = installed(name)
        if spec is None:
            continue
        for folder in spec.submodule_search_locations or []:
            paths[name] = folder
            libraries = f"{folder}.libs"  # shared libraries that wheels carry beside the package
            if os.path.isdir(libraries):
                paths[f"{name}.libs"] = libraries
        # six, for one, calls itself a package without folders.
        if not spec.submodule_search_locations and spec.has_location and spec.origin:
            paths[name] = spec.origin
    return paths


class ZygoteClient:
    """A running zygote.

    Raises:
        IsolationError: the level reached is below `min_level`.
        SandboxError: the zygote did not start.
    """

    def __init__(
        self,
        min_level: Level = Level.SECCOMP,
        max_level: Level = Level.FULL,
        packages: Iterable[str] = ("numpy",),
    ) -> None:
        self.requests = 0
        self.broken = ""
        self.level = Level.NONE
        paths = package_paths(packages)
        hello = self._start(max_level, paths)
        self.why_no_namespaces = hello.get("retry_without_namespaces", "")
        if self.why_no_namespaces:
            self.close()
            hello = self._start(min(max_level, Level.LANDLOCK), paths)
        self.level = Level(hello["level"])
        if self.level < min_level:
            self.close()
            raise IsolationError(
                f"the sandbox reaches level {int(self.level)} here, min_level={int(min_level)} is "
                f"required (namespaces: {self.why_no_namespaces or 'not tried'}). See "
                "`python -m reward.selftest`; to accept less isolation, lower min_level."
            )

    def _start(self, max_level: Level, paths: dict[str, str]) -> dict:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        support = package_paths(PYTEST)
        options = json.dumps({"max_level": int(max_level), "packages": paths, "support": support})
        self._stderr = os.memfd_create("zygote-stderr", os.MFD_CLOEXEC)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-c", _BOOT, str(theirs.fileno()), options],
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,
            )
        self._sock = ours
        try:
            return wire.receive_message(ours, time.monotonic() + _START_DEADLINE_S)[0]
        except ConnectionLost as error:
            message = self._last_words()
            self.close()
            raise SandboxError(f"the sandbox did not start ({error}): {message}") from error

    def run(self, request: Request) -> list[RunResult]:
        """Run a program on the inputs of a request; how each ended.

        Raises:
            SandboxError: the zygote died or did not answer; it is closed and of no more use.
        """
        remains = self._ask(request)
        if remains is None:
            return [RunResult(End.BROKEN, self.broken, 0.0, b"")] * len(request.inputs)
        return results(request.kind, remains, request.limits)

    def score(self, request: Request, count: int) -> list[Score]:
        """What a problem's own checker says of the `count` cases in the only input.

        Raises:
            SandboxError: as `run`.
        """
        remains = self._ask(request)
        if remains is None:
            return [Score(None, End.BROKEN, self.broken)] * count
        return scores(remains, request.limits, count)

    def _ask(self, request: Request) -> Remains | None:
        """What a request left; None if the zygote could not carry it out (`broken` says why)."""
        self.requests += 1
        deadline_s = time.monotonic() + _SLACK_S + request.limits.total_s
        try:
            self._sock.settimeout(_SLACK_S)
            self._send(request)
            header, fds = wire.receive_message(self._sock, deadline_s)
        except (ConnectionLost, OSError) as error:
            message = self._last_words()
            self.close()
            raise SandboxError(f"a zygote failed ({error}): {message}") from error
        if "broken" in header:
            self.broken = str(header["broken"])
            return None
        return _remains(header, *fds)

    def _send(self, request: Request) -> None:
        """Send the request; a test program in a message of its own (see `Executor._check`)."""
        apart = request.kind == Kind.CHECK
        contents = [[request.code, *([] if apart else request.inputs)]]
        header = request.header()
        if apart:
            header["sizes"][1:] = [0]
            contents.append(request.inputs)
        for number, parts in enumerate(contents):
            fd = wire.memory_file(parts)
            try:
                wire.send_message(self._sock, {} if number else header, [fd])
            finally:
                os.close(fd)

    @property
    def pid(self) -> int:
        """The process to watch; the zygote itself, or its launcher."""
        return self._process.pid

    def close(self) -> None:
        """End the zygote and everything below it.

        It ends by itself when the connection does, and its launcher then reaps it; force is for
        one that hangs.
        """
        self._sock.close()
        try:
            self._process.wait(_END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1

    def _last_words(self) -> str:
        size = os.fstat(self._stderr).st_size
        text = os.pread(self._stderr, _MESSAGE_BYTES, max(0, size - _MESSAGE_BYTES))
        return text.decode("utf-8", "replace").strip() or "no message"

    def __enter__(self) -> "ZygoteClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _remains(header: dict[str, Any], result: int) -> Remains:
    try:
        content = os.pread(result, os.fstat(result).st_size, 0)
    finally:
        os.close(result)
    deaths = [Death(*fields) for fields in header["deaths"]]
    return Remains(deaths, header["outputs"], header["sink"], content)

"""`python -m reward.selftest`: attempt each attack in a real child and say what stops it.

Every line is a protection: ACTIVE if a program that tried was stopped, MISSING if it got
through. The exit status is 1 below the required level, and where a protection that the level
promises is missing.
"""

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from reward.config import JudgeConfig, JudgeConfigError, add_settings_option, parse_settings
from reward.judge import Judge
from reward.problem import parse_input_output
from reward.sandbox import landlock
from reward.sandbox.client import SandboxError
from reward.sandbox.wire import Level
from reward.verdict import Verdict

_PROBLEM = parse_input_output({"inputs": ["x"], "outputs": ["through"]})
_CALL = "import ctypes\nr = ctypes.CDLL(None, use_errno=True)"
_PROBING: dict[str, Any] = {
    "timeout_s": 0.5, "workers": 1, "strict": True, "audit_fraction": 0.0, "min_level": 0,
}  # fmt: skip
_TIMING: dict[str, Any] = {"workers": 1, "audit_fraction": 0.0, "min_level": 0}
_SPEED_PROGRAMS = 40
_SPEED_TESTS = 10


@dataclass(frozen=True)
class Probe:
    """An attack: `code` prints "through" where it succeeds. `since` is the level that stops it."""

    name: str
    since: Level
    code: str


PROBES = (
    Probe("CPU time is limited", Level.NONE, "while True: pass"),
    Probe("sleeping is limited", Level.NONE, "import time\ntime.sleep(1000)\nprint('through')"),
    Probe("memory is limited", Level.NONE, "x = bytearray(1 << 34)\nprint('through')"),
    Probe(
        "output is limited",
        Level.NONE,
        "import os\nn = 0\nfor _ in range(1000): n += os.write(1, b' ' * 10**6)\nprint('through')",
    ),
    Probe("the environment is empty", Level.NONE, "import os\nif os.environ: print('through')"),
    Probe(
        "the judge's descriptors are closed",
        Level.NONE,
        "import os\nfor fd in range(3, 1000):\n    try: os.fstat(fd)\n    except OSError: pass\n"
        "    else: print('through'); break",
    ),
    Probe(
        "processes cannot be made",
        Level.SECCOMP,
        "import os\nif os.fork() == 0: os._exit(0)\nprint('through')",
    ),
    Probe(
        "programs cannot be executed",
        Level.SECCOMP,
        "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', ':'], {})\nprint('through')",
    ),
    Probe("TCP is closed", Level.SECCOMP, "import socket\nsocket.socket()\nprint('through')"),
    Probe(
        "UDP is closed",
        Level.SECCOMP,
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nprint('through')",
    ),
    Probe(
        "Unix sockets are closed",
        Level.SECCOMP,
        "import socket\nsocket.socket(socket.AF_UNIX)\nprint('through')",
    ),
    Probe(
        "others cannot be signalled",
        Level.SECCOMP,
        "import os\nos.kill(os.getppid(), 0)\nprint('through')",
    ),
    Probe(
        "others cannot be traced",
        Level.SECCOMP,
        f"{_CALL}.ptrace(0, 0, 0, 0)\nif r == 0: print('through')",
    ),
    Probe(
        "limits cannot be changed",
        Level.SECCOMP,
        "import resource as r\nr.setrlimit(r.RLIMIT_AS, r.getrlimit(r.RLIMIT_AS))\n"
        "print('through')",
    ),
    Probe(
        "namespaces cannot be made",
        Level.SECCOMP,
        f"{_CALL}.unshare(0x10000000)\nif r == 0: print('through')",
    ),
    Probe(
        "files cannot be written",
        Level.SECCOMP,
        "import os\np = f'/tmp/selftest-{os.getpid()}'\nopen(p, 'w').close()\nos.remove(p)\n"
        "print('through')",
    ),
    Probe(
        "directories cannot be made",
        Level.SECCOMP,
        "import os\np = f'/tmp/selftest-{os.getpid()}'\nos.mkdir(p)\nos.rmdir(p)\nprint('through')",
    ),
    Probe(
        "shared memory cannot be made",
        Level.SECCOMP,
        f"{_CALL}\nr, id = 0, r.shmget(0, 4096, 0o1600)\nif id >= 0:\n"
        "    ctypes.CDLL(None).shmctl(id, 0, 0)\n    print('through')",
    ),
    Probe("files cannot be read", Level.LANDLOCK, "open('/etc/passwd')\nprint('through')"),
    Probe(
        "the zygote's memory cannot be read",
        Level.NONE,
        "import os\nopen(f'/proc/{os.getppid()}/maps').read(1)\nprint('through')",
    ),
    Probe(
        "processes are numbered apart (PID namespace)",
        Level.FULL,
        "import os\nif os.getppid() != 1: print('through')",
    ),
    Probe(
        "capabilities are none",
        Level.NONE,
        "import ctypes\nh = (ctypes.c_uint32 * 2)(0x20080522, 0)\nd = (ctypes.c_uint32 * 6)()\n"
        "r = ctypes.CDLL(None).capget(h, d)\nif any(d): print('through')",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; see the module for the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reward.selftest", description="Attack the sandbox and report what holds."
    )
    add_settings_option(parser)
    options = parser.parse_args(arguments)
    try:
        config = JudgeConfig.from_mapping(parse_settings(options.set))
        with Judge(replace(config, **_PROBING)) as judge:
            missing = probe_all(judge)
            level, why_not = judge.level, judge.why_no_namespaces
        with Judge(replace(config, **_TIMING)) as judge:
            tests_per_second = _speed(judge)
    except (JudgeConfigError, SandboxError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\nkernel            {platform.release()} {platform.machine()}")
    print(f"Python            {platform.python_version()}")
    print(f"Landlock ABI      {landlock.abi() or 'none'}")
    print(f"namespaces        {f'no: {why_not}' if why_not else 'yes'}")
    print(f"level             {int(level)} ({level.name}), required: {config.min_level}")
    print(f"tests per second  {tests_per_second:.0f} on one core, {_SPEED_TESTS} tests a program")
    broken = [probe.name for probe in missing if probe.since <= level]
    for name in broken:
        print(f"error: level {int(level)} promises, but does not keep: {name}", file=sys.stderr)
    return 1 if broken or level < config.min_level else 0


def probe_all(judge: Judge) -> list[Probe]:
    """Print a line per probe; those that are missing."""
    missing = []
    for probe in PROBES:
        result = judge.judge(_PROBLEM, probe.code)
        active = result.verdict not in (Verdict.ACCEPTED, Verdict.INTERNAL_ERROR)
        print(f"{'ACTIVE ' if active else 'MISSING'}  {probe.name}", flush=True)
        if not active:
            missing.append(probe)
    return missing


def _speed(judge: Judge) -> float:
    problem = parse_input_output(
        {
            "inputs": [f"{i}\n" for i in range(_SPEED_TESTS)],
            "outputs": [f"{i + 1}\n" for i in range(_SPEED_TESTS)],
        }
    )
    judge.judge(problem, "print(int(input()) + 1)")
    start = time.monotonic()
    for _ in range(_SPEED_PROGRAMS):
        judge.judge(problem, "print(int(input()) + 1)")
    return _SPEED_PROGRAMS * _SPEED_TESTS / (time.monotonic() - start)


if __name__ == "__main__":
    raise SystemExit(main())

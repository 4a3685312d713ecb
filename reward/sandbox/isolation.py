"""Puts a zygote and its programs behind the kernel's walls, as high as this machine allows.

Order: `enter_namespaces` by the launcher, before anything is imported; `prepare` once by the
zygote; `confine` by each program's process before it compiles the program.
"""

import ctypes
import os
import platform
import resource
import signal
import sys
import sysconfig
from dataclasses import dataclass

from reward.sandbox import landlock, seccomp
from reward.sandbox.libc import LIBC, check
from reward.sandbox.wire import Level, Limits

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
_CLONE_NEWPID, _CLONE_NEWNET, _CLONE_NEWUTS = 0x20000000, 0x40000000, 0x04000000
_NAMESPACES = (
    _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
)
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_PR_SET_CHILD_SUBREAPER = 36
_CAPABILITY_VERSION_3 = 0x20080522
_MAX_FDS, _MAX_TASKS = 1024, 256

# Read-only for programs: the interpreter's library and what libc and numpy look at.
_SYSTEM_PATHS = (
    "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache",
    "/etc/localtime", "/usr/share/zoneinfo", "/dev/urandom", "/dev/random", "/dev/zero",
    "/sys/devices/system/cpu",
)  # fmt: skip
_WRITABLE_PATHS = ("/dev/null",)


@dataclass(frozen=True)
class Walls:
    """What a zygote prepared once for all its programs."""

    level: Level
    seccomp_filter: seccomp.Filter | None
    ruleset_fd: int
    checker_ruleset_fd: int
    base_memory_bytes: int


def enter_namespaces() -> None:
    """Move this process's future children into namespaces of their own; the user keeps their id.

    Raises:
        OSError: the kernel or its policy forbids it (containers, AppArmor); some namespaces may
            have been entered, so the caller starts over in a new process without them.
    """
    uid, gid = os.getuid(), os.getgid()
    check(LIBC.unshare(_NAMESPACES), "unshare")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")
    check(LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")


def prepare(
    namespaced: bool, packages: dict[str, str], support: dict[str, str], max_level: Level
) -> Walls:
    """Drop this process's powers and build what `confine` installs.

    Args:
        namespaced: whether `enter_namespaces` succeeded.
        packages: third-party packages that programs may import, name -> folder or file.
        support: those that only test programs may import.
        max_level: go no higher, for tests and for comparing the levels.
    """
    die_with_parent()
    check(LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    _drop_capabilities()
    hide_memory()
    adopt_orphans()
    rulesets, seccomp_filter, level = (-1, -1), None, Level.NONE
    if max_level >= Level.SECCOMP and seccomp.supported():
        level = Level.SECCOMP
        if max_level >= Level.LANDLOCK and landlock.abi() > 0:
            rulesets = _ruleset(packages), _ruleset(packages | support)
            level = Level.FULL if namespaced else Level.LANDLOCK
        program = seccomp.assemble(platform.machine(), read_only_files=level < Level.LANDLOCK)
        seccomp_filter = seccomp.Filter(program)
    _limit_everything(namespaced)
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    return Walls(level, seccomp_filter, *rulesets, pages * resource.getpagesize())


def confine(walls: Walls, limits: Limits, ruleset_fd: int) -> None:
    """Lock this process in, for good. Raises OSError if a wall does not come up.

    `ruleset_fd` is one of the rulesets of `walls`.
    """
    _limit(resource.RLIMIT_AS, walls.base_memory_bytes + limits.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, limits.output_bytes)
    seconds = int(limits.cpu_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    if ruleset_fd >= 0:
        landlock.enter(ruleset_fd)
        os.close(walls.ruleset_fd)
        os.close(walls.checker_ruleset_fd)
    if walls.seccomp_filter:
        walls.seccomp_filter.install()


def die_with_parent() -> None:
    """SIGKILL for this process when its parent dies, also if the parent has died already."""
    parent = os.getppid()
    check(LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def hide_memory() -> None:
    """Make this process's memory unreadable to others of its user, and lose core dumps.

    For the judge if there is no Landlock, which otherwise keeps programs from /proc/PID/mem.
    """
    check(LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents die, so that they can be ended."""
    check(LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def readable_paths(packages: dict[str, str]) -> list[str]:
    """Everything a program may read."""
    names = ("stdlib", "platstdlib")
    own = {sysconfig.get_path(name) for name in names} | {f"{sys.base_exec_prefix}/lib"}
    return sorted({*_SYSTEM_PATHS, *own, *packages.values()})


def _ruleset(packages: dict[str, str]) -> int:
    return landlock.ruleset(readable_paths(packages), _WRITABLE_PATHS)


def _limit_everything(namespaced: bool) -> None:
    """The limits that suit the zygote as well as its programs.

    The number of tasks is limited only if a user namespace makes it a count of our own: else
    it is the user's on the whole node.
    """
    for which in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _limit(which, 0)
    _limit(resource.RLIMIT_NOFILE, _MAX_FDS)
    if namespaced:
        _limit(resource.RLIMIT_NPROC, _MAX_TASKS)


def _limit(which: int, amount: int) -> None:
    """Limit `which` to `amount`, or to as much as there can be."""
    hard, amount = resource.getrlimit(which)[1], min(amount, sys.maxsize)
    if hard != resource.RLIM_INFINITY:
        amount = min(amount, hard)
    resource.setrlimit(which, (amount, amount))


def _drop_capabilities() -> None:
    """No capability in any set, so that root's programs are as weak as anyone's."""
    for capability in range(64):
        if LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # past the last one, or not allowed to drop from the bounding set
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    empty = (ctypes.c_uint32 * 6)()
    check(LIBC.capset(header, empty), "capset")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)

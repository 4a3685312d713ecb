"""A seccomp filter for judged programs, assembled here: no library, x86_64 and aarch64.

The filter is an allow-list. What is not named answers EPERM, so system calls that do not exist yet
are refused too; a foreign architecture or the x32 table kills the process. Processes cannot be
made (threads can), nothing outside the process can be signalled, traced or connected to, and the
limits cannot be raised. The kernel's interface is seccomp(2) and filter.txt; the numbers are those
of the kernel's unistd headers.

Standard library only. The filter is installed in the program's process, just before the program's
source is compiled.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from reward.sandbox.libc import LIBC, check

_LD_ABS, _JEQ, _JGE, _JA, _AND, _RET = 0x20, 0x15, 0x35, 0x05, 0x54, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NR_OFFSET, _ARCH_OFFSET, _ARGS_OFFSET = 0, 4, 16
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_CLONE_THREAD = 0x00010000
_WRITING_OPEN_FLAGS = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC

_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x541B, 0x5421, 0x5450, 0x5451
_F_DUPFD_CLOEXEC, _F_GET_SEALS, _F_GETPIPE_SZ = 1030, 1034, 1032
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA = 15, 16, 0x53564D41


@dataclass(frozen=True)
class Allow:
    """Let the call through."""


@dataclass(frozen=True)
class Refuse:
    """Answer with this errno."""

    error: int


@dataclass(frozen=True)
class AllowIf:
    """Let the call through where (argument & mask) is one of `values`, else answer EPERM.

    Only the low 32 bits count, except with `whole`, where the high half must be zero as well.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    whole: bool = False


@dataclass(frozen=True)
class ReadLimit:
    """Let limits be read (no new one given), and answer success, without any effect, where one of
    `pretended` is to be set; else answer EPERM.

    Contest programs raise the limit of their stack, which is high enough here.
    """

    limit: int
    new: int
    pretended: tuple[int, ...]


Rule = Allow | Refuse | AllowIf | ReadLimit

# name: (x86_64, aarch64); None if the architecture lacks it.
_PLAIN: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "stat": (4, None),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "readlink": (89, None),
    "readlinkat": (267, 78), "getcwd": (79, 17), "getdents64": (217, 61), "getdents": (78, None),
    "statfs": (137, 43), "fstatfs": (138, 44), "select": (23, None), "pselect6": (270, 72),
    "poll": (7, None), "ppoll": (271, 73), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "eventfd2": (290, 19),
    "pipe": (22, None), "pipe2": (293, 59), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46),
    "flock": (73, 32), "fadvise64": (221, 223), "sched_yield": (24, 124), "mremap": (25, 216),
    "msync": (26, 227), "mincore": (27, 232), "madvise": (28, 233), "sigaltstack": (131, 132),
    "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133),
    "pause": (34, None), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169),
    "time": (201, None), "times": (100, 153), "getitimer": (36, 102), "setitimer": (38, 103),
    "alarm": (37, None), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150),
    "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156), "uname": (63, 160),
    "sysinfo": (99, 179), "getrusage": (98, 165), "getrlimit": (97, 163),
    "getpriority": (140, 141), "sched_getaffinity": (204, 123), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126), "getcpu": (309, 168), "arch_prctl": (158, None),
    "set_tid_address": (218, 96), "set_robust_list": (273, 99), "rseq": (334, 293),
    "membarrier": (324, 283), "futex": (202, 98), "restart_syscall": (219, 128),
    "exit": (60, 93), "exit_group": (231, 94), "getrandom": (318, 278), "umask": (95, 166),
    "socketpair": (53, 199), "recvfrom": (45, 207), "shutdown": (48, 210),
    "close_range": (436, 436),
}  # fmt: skip

_OPEN: dict[str, tuple[int | None, int | None, int]] = {
    "open": (2, None, 1),  # x86_64, aarch64, position of the flags
    "openat": (257, 56, 2),
}

_RULED: dict[str, tuple[int | None, int | None, Rule]] = {
    # Threads, never processes. clone3 hides its flags in memory: ENOSYS makes libc use clone.
    "clone": (56, 220, AllowIf(0, (_CLONE_THREAD,), mask=_CLONE_THREAD)),
    "clone3": (435, 435, Refuse(errno.ENOSYS)),
    "prlimit64": (302, 261, ReadLimit(limit=1, new=2, pretended=(resource.RLIMIT_STACK,))),
    # No F_SETOWN, F_SETSIG (signals to others), F_SETPIPE_SZ, F_ADD_SEALS.
    "fcntl": (72, 25, AllowIf(1, (*range(8), _F_DUPFD_CLOEXEC, _F_GET_SEALS, _F_GETPIPE_SZ))),
    "ioctl": (16, 29, AllowIf(1, (_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX))),
    "prctl": (157, 167, AllowIf(0, (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA))),
    # On a socket pair only: an address would reach sockets of other processes.
    "sendto": (44, 206, AllowIf(4, (0,), whole=True)),
}

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def supported() -> bool:
    """Whether the table covers this machine."""
    return platform.machine() in _ARCHITECTURES


def rules(machine: str, read_only_files: bool) -> dict[int, Rule]:
    """System-call number -> rule on `machine`.

    `read_only_files` refuses every open that could write, for kernels without Landlock.
    """
    column = _ARCHITECTURES[machine][1]
    table: dict[int, Rule] = {}
    for numbers in _PLAIN.values():
        if (number := numbers[column]) is not None:
            table[number] = Allow()
    for x86_64, aarch64, rule in _RULED.values():
        if (number := (x86_64, aarch64)[column]) is not None:
            table[number] = rule
    for x86_64, aarch64, flags in _OPEN.values():
        if (number := (x86_64, aarch64)[column]) is not None:
            read_only = AllowIf(flags, (os.O_RDONLY,), mask=_WRITING_OPEN_FLAGS)
            table[number] = read_only if read_only_files else Allow()
    return table


def assemble(machine: str, read_only_files: bool = False) -> bytes:
    """The filter as an array of `struct sock_filter` (8 bytes each)."""
    audit_arch = _ARCHITECTURES[machine][0]
    table = rules(machine, read_only_files)
    starts: list[tuple[int, Rule]] = []
    for number in range(max(table) + 2):
        rule = table.get(number, Refuse(errno.EPERM))
        if not starts or starts[-1][1] != rule:
            starts.append((number, rule))
    body = [_insn(_LD_ABS, _NR_OFFSET), *_tree(starts)]
    head = [
        _insn(_LD_ABS, _ARCH_OFFSET),
        _insn(_JEQ, audit_arch, jt=1),
        _insn(_RET, _KILL_PROCESS),
    ]
    return b"".join(head + body)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Filter:
    """An assembled filter, ready to be installed."""

    def __init__(self, program: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(program, len(program))
        start = ctypes.cast(self._buffer, ctypes.c_void_p)
        self._header = ctypes.pointer(_Program(len(program) // 8, start))

    def install(self) -> None:
        """Put this process, which must have no_new_privs, behind the filter for good.

        Raises:
            OSError: the kernel has no seccomp filters, or forbids them here.
        """
        installed = LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._header, 0, 0)
        check(installed, "prctl(PR_SET_SECCOMP)")


def _insn(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("<HBBI", code, jt, jf, k)


def _tree(starts: Sequence[tuple[int, Rule]]) -> list[bytes]:
    """A binary search over intervals of system-call numbers; the number is in the accumulator.

    The kernel runs the filter once for every number when it is installed, so depth matters.
    """
    assert all(a[0] < b[0] for a, b in pairwise(starts))
    if len(starts) == 1:
        return _leaf(starts[0][1])
    middle = len(starts) // 2
    left, right = _tree(starts[:middle]), _tree(starts[middle:])
    return [_insn(_JGE, starts[middle][0], jf=1), _insn(_JA, len(left)), *left, *right]


def _leaf(rule: Rule) -> list[bytes]:
    if isinstance(rule, Allow):
        return [_insn(_RET, _ALLOW)]
    if isinstance(rule, Refuse):
        return [_insn(_RET, _ERRNO | rule.error)]
    if isinstance(rule, ReadLimit):
        return _limit_leaf(rule)
    low = _ARGS_OFFSET + 8 * rule.argument
    refuse = _insn(_RET, _ERRNO | errno.EPERM)
    code = []
    if rule.whole:
        code += [_insn(_LD_ABS, low + 4), _insn(_JEQ, 0, jt=1), refuse]
    code.append(_insn(_LD_ABS, low))
    if rule.mask != 0xFFFFFFFF:
        code.append(_insn(_AND, rule.mask))
    for value in rule.values:
        code += [_insn(_JEQ, value, jf=1), _insn(_RET, _ALLOW)]
    return [*code, refuse]


def _limit_leaf(rule: ReadLimit) -> list[bytes]:
    new, limit = (_ARGS_OFFSET + 8 * argument for argument in (rule.new, rule.limit))
    code = [
        _insn(_LD_ABS, new + 4),
        _insn(_JEQ, 0, jf=3),
        _insn(_LD_ABS, new),
        _insn(_JEQ, 0, jf=1),
        _insn(_RET, _ALLOW),
        _insn(_LD_ABS, limit),
    ]
    for value in rule.pretended:
        code += [_insn(_JEQ, value, jf=1), _insn(_RET, _ERRNO)]
    return [*code, _insn(_RET, _ERRNO | errno.EPERM)]

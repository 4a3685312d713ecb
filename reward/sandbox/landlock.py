"""Landlock by ctypes: files become unreadable but for a list, nothing is writable, no TCP.

Kernel interface: landlock(7); the bits are those of include/uapi/linux/landlock.h. The ruleset is
built once per zygote and entered by each program's process; each entry is a domain of its own, so
that a program can signal nobody outside itself (ABI 6) and trace nobody (all ABIs).
"""

import ctypes
import os
import struct
from collections.abc import Iterable

from reward.sandbox.libc import LIBC, check, syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG, _RULE_PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FS_BITS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_BIND_TCP, _NET_CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1 << 0, 1 << 1
_FILE_BITS = _EXECUTE | _WRITE_FILE | _READ_FILE


def abi() -> int:
    """The kernel's Landlock ABI, 0 if there is none."""
    return max(0, syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def ruleset(readable: Iterable[str], writable: Iterable[str] = ()) -> int:
    """A ruleset as a file descriptor; paths that do not exist are left out.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = abi()
    handled_fs = (1 << _FS_BITS_BY_ABI.get(version, 16)) - 1
    handled_net = _NET_BIND_TCP | _NET_CONNECT_TCP if version >= 4 else 0
    scoped = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("<QQQ", handled_fs, handled_net, scoped)[:size]
    fd = check(syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    for path in readable:
        _allow(fd, path, _READ_FILE | _READ_DIR)
    for path in writable:
        _allow(fd, path, _READ_FILE | _WRITE_FILE)
    return fd


def enter(ruleset_fd: int) -> None:
    """Restrict this process by the ruleset, for good. Needs no_new_privs.

    Raises:
        OSError: refused by the kernel.
    """
    check(syscall(_RESTRICT_SELF, ruleset_fd, 0), "landlock_restrict_self")


def _allow(ruleset_fd: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a path of the list that this system lacks, or that we may not read ourselves
    try:
        if not os.path.isdir(path):
            access &= _FILE_BITS
        rule = ctypes.create_string_buffer(struct.pack("<Qi", access, fd), 12)
        check(
            LIBC.syscall(
                ctypes.c_long(_ADD_RULE),
                ctypes.c_long(ruleset_fd),
                ctypes.c_long(_RULE_PATH_BENEATH),
                rule,
                ctypes.c_long(0),
            ),
            f"landlock_add_rule({path})",
        )
    finally:
        os.close(fd)

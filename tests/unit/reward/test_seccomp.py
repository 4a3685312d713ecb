"""The filter, run by a small interpreter of classic BPF, does what its table says."""

import errno
import os
import re
import struct
from pathlib import Path

import pytest

from reward.sandbox import seccomp
from reward.sandbox.seccomp import Allow, AllowIf, ReadLimit, Refuse

ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PERMISSION_DENIED = 0x00050000 | errno.EPERM


def run(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """The filter's answer to one system call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    code = [struct.unpack_from("<HBBI", program, i) for i in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x05:
                at += k
            case 0x54:
                accumulator &= k
            case 0x06:
                return k
            case _:
                raise AssertionError(f"unknown operation {operation:#x}")


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_number_gets_what_the_table_says(machine: str) -> None:
    program = seccomp.assemble(machine)
    rules = seccomp.rules(machine, read_only_files=False)
    for number in range(600):
        answer = run(program, number, ARCHITECTURES[machine])
        match rules.get(number):
            case None:
                assert answer == PERMISSION_DENIED
            case Allow():
                assert answer == ALLOW
            case Refuse(error):
                assert answer == 0x00050000 | error
            case AllowIf(values=values):
                assert answer == (ALLOW if 0 in values else PERMISSION_DENIED)
            case ReadLimit():
                assert answer == ALLOW


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_foreign_architecture_kills(machine: str) -> None:
    assert run(seccomp.assemble(machine), 0, 0x40000003) == KILL


def test_the_x32_table_is_refused() -> None:
    answer = run(seccomp.assemble("x86_64"), 0x40000000, ARCHITECTURES["x86_64"])
    assert answer == PERMISSION_DENIED


@pytest.mark.parametrize(("machine", "clone"), [("x86_64", 56), ("aarch64", 220)])
def test_threads_are_allowed_processes_are_not(machine: str, clone: int) -> None:
    program, arch = seccomp.assemble(machine), ARCHITECTURES[machine]
    assert run(program, clone, arch, (0x3D0F00,)) == ALLOW  # what pthread_create passes
    assert run(program, clone, arch, (17,)) == PERMISSION_DENIED  # SIGCHLD: fork
    assert run(program, clone, arch, (0x4111,)) == PERMISSION_DENIED  # vfork
    assert run(program, 435, arch) == 0x00050000 | errno.ENOSYS


def test_limits_may_be_read_not_set() -> None:
    program, arch = seccomp.assemble("x86_64"), ARCHITECTURES["x86_64"]
    assert run(program, 302, arch, (0, 7, 0, 1)) == ALLOW
    assert run(program, 302, arch, (0, 7, 1, 0)) == PERMISSION_DENIED
    assert run(program, 302, arch, (0, 7, 1 << 32, 0)) == PERMISSION_DENIED


@pytest.mark.parametrize(("machine", "prlimit"), [("x86_64", 302), ("aarch64", 261)])
def test_setting_the_stacks_limit_seems_to_succeed(machine: str, prlimit: int) -> None:
    program, arch = seccomp.assemble(machine), ARCHITECTURES[machine]
    success = 0x00050000  # an error of number zero: the call is not made and returns 0
    for new in (1, 1 << 32, (1 << 32) + 1):
        assert run(program, prlimit, arch, (0, 3, new, 0)) == success
        for other in (0, 1, 2, 4, 6, 7, 9):
            assert run(program, prlimit, arch, (0, other, new, 0)) == PERMISSION_DENIED


def test_without_landlock_files_open_for_reading_only() -> None:
    program, arch = seccomp.assemble("x86_64", read_only_files=True), ARCHITECTURES["x86_64"]
    for flags, allowed in (
        (os.O_RDONLY | os.O_CLOEXEC, True),
        (os.O_RDONLY | os.O_DIRECTORY, True),
        (os.O_WRONLY, False),
        (os.O_RDWR, False),
        (os.O_RDONLY | os.O_TRUNC, False),
        (os.O_RDONLY | os.O_CREAT, False),
    ):
        wanted = ALLOW if allowed else PERMISSION_DENIED
        assert run(program, 2, arch, (0, flags)) == wanted
        assert run(program, 257, arch, (0, 0, flags)) == wanted


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"needs the kernel's headers: {header} is absent")
    text = Path(header).read_text()
    known = {m[1]: int(m[2]) for m in re.finditer(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\n", text)}
    column = 0 if machine == "x86_64" else 1
    tables = (seccomp._PLAIN, seccomp._OPEN, seccomp._RULED)
    numbers = {name: entry[column] for table in tables for name, entry in table.items()}
    aliases = {"newfstatat": "fstatat"} if machine == "aarch64" else {}
    checked = 0
    for name, number in numbers.items():
        listed = known.get(aliases.get(name, name))
        if number is not None and listed is not None:
            assert number == listed, name
            checked += 1
    assert checked > 80

"""Make a libcuda.so.1 for a machine without NVIDIA's driver: stand_in_libcuda.py PACKAGES OUT.

Compiled extensions under the folder PACKAGES are linked to the driver's library, or look functions
up in it as they load, and cannot be loaded without them. The library made here has the functions
that they name and no more; each says that there is no device. It lets modules be imported, and
nothing be computed. Needs gcc and binutils.
"""

import re
import subprocess
import sys
from pathlib import Path

LIBRARY = "libcuda.so.1"
NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE of the driver's interface."""
FUNCTION = re.compile(r"\bU (cu[A-Z]\w*)")
LOOKED_UP = re.compile(rb"\0(cu[A-Z]\w+)(?=\0)")
LARGEST_READ = 64 << 20
"""Bytes: larger extensions, such as PyTorch's, look functions up when they compute."""


def needed(path: Path) -> str:
    return subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True).stdout


def functions_of(path: Path) -> set[str]:
    """The driver's functions that an extension leaves undefined."""
    command = ["nm", "-D", "--undefined-only", str(path)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name for name in FUNCTION.findall(listing) if not name.startswith("cuda")}


def looked_up(path: Path) -> set[str]:
    """The driver's functions that an extension which opens its library by name holds names of."""
    if path.stat().st_size > LARGEST_READ:
        return set()
    content = path.read_bytes()
    if b"libcuda.so" not in content:
        return set()
    return {name.decode() for name in LOOKED_UP.findall(content)}


def source(functions: set[str]) -> str:
    """C of the library. What gives a text gives one, since nobody asks whether it did."""
    text = '(int code, const char **out) { *out = "no device"; return 0; }'
    plain = f"(void) {{ return {NO_DEVICE}; }}"
    return "".join(
        f"int {name}{text if name.startswith('cuGetError') else plain}\n"
        for name in sorted(functions)
    )


def main() -> None:
    packages, out = Path(sys.argv[1]), Path(sys.argv[2])
    extensions = sorted(path for path in packages.rglob("*.so*") if path.is_file())
    linked = [path for path in extensions if LIBRARY in needed(path)]
    functions = {"cuInit"}.union(*map(functions_of, linked), *map(looked_up, extensions))
    out.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-w", "-x", "c", "-", f"-Wl,-soname,{LIBRARY}"]
    command += ["-o", str(out / LIBRARY)]
    subprocess.run(command, input=source(functions), text=True, check=True)
    print(f"{len(functions)} functions for {len(extensions)} extensions, {len(linked)} linked")


if __name__ == "__main__":
    main()

"""Print a digest of what scripts/check_gpu_install.sh depends on: install_stamp.py ENGINE.

That is requirements/gpu-ENGINE.lock, and the third-party modules that the shipped packages import.
"""

import ast
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("recipe", "refiner_worker", "reward")


def modules(source: str) -> set[str]:
    """Absolute names of the modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def third_party() -> list[str]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    names = set().union(*(modules(file.read_text()) for file in files))
    ours = {*PACKAGES, *sys.stdlib_module_names}
    return sorted(name for name in names if name.partition(".")[0] not in ours)


def main() -> None:
    lock = (ROOT / "requirements" / f"gpu-{sys.argv[1]}.lock").read_text()
    pins = [line for line in lock.splitlines() if not line.startswith("#")]
    print(hashlib.sha256("\n".join([*pins, *third_party()]).encode()).hexdigest())


if __name__ == "__main__":
    main()

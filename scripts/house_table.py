#!/usr/bin/env python
"""The plan of a checkout in numbers: modules, rooms, layers, arrows, lines, parameters.

    python scripts/house_table.py [CHECKOUT …]

A room is a folder of `recipe/online_refiner`, or one of the groups of modules that stand beside the
folders (`GROUPS`), or a module alone (tests/unit/test_layout.py allows none). An arrow is an import
of one room by another; the layer of a room is the length of the longest chain of arrows below it.
Two checkouts give two columns.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[1]
CORE = "recipe/online_refiner"
PACKAGES = (
    *("recipe/online_refiner", "recipe/cpu", "recipe/data", "recipe/evaluation"),
    *("recipe/analysis", "recipe/acceptance", "recipe/study"),
    *("refiner_worker", "reward", "scripts", "tests"),
)
GROUPS = {
    "choices": ("choices", "records", "scores"),
    "plan": ("plan", "settings", "experiments"),
    "entry": (
        "main",
        "runner",
        "modes",
        "trainer",
        "lifecycle",
        "late_join",
        "agent_loop",
        "verls_validation",
    ),
}
"""The rooms that are no folders."""
MAX_PARAMETERS = 4


def modules(root: Path) -> dict[str, Path]:
    """Dotted names below the core, and their files; packages themselves left out."""
    files = sorted((root / CORE).rglob("*.py"))
    return {
        ".".join(path.relative_to(root / CORE).with_suffix("").parts): path
        for path in files
        if path.stem != "__init__"
    }


def imported_names(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Absolute dotted names of all imports, those inside functions included.

    `from a import b` yields both a and a.b, since b may be a module.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def arrows(root: Path) -> dict[str, set[str]]:
    """Each module of the core, and the modules of the core that it imports."""
    known, prefix = modules(root), CORE.replace("/", ".")
    found = {}
    for name, path in known.items():
        names = imported_names(path.read_text(encoding="utf-8"), f"{prefix}.{name}")
        below = {one.removeprefix(f"{prefix}.") for one in names}
        found[name] = (below & known.keys()) - {name}
    return found


def room_of(module: str) -> str:
    """The folder that holds the module, or its group, or the module itself."""
    first = module.partition(".")[0]
    return next((room for room, names in GROUPS.items() if first in names), first)


def rooms(root: Path) -> dict[str, set[str]]:
    """Each room, and the rooms that it imports."""
    between = arrows(root)
    found: dict[str, set[str]] = {room_of(name): set() for name in between}
    for name, others in between.items():
        here = room_of(name)
        found[here] |= {room_of(other) for other in others} - {here}
    return found


def layers(graph: dict[str, set[str]]) -> dict[str, int]:
    """The layer of each node, from 1; raises ValueError if arrows go in a circle."""
    found: dict[str, int] = {}

    def layer(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"a circle: {' -> '.join([*above, name])}")
        if name not in found:
            found[name] = 1 + max((layer(n, (*above, name)) for n in graph[name]), default=0)
        return found[name]

    for name in graph:
        layer(name, ())
    return found


def many_parameters(root: Path) -> list[str]:
    """Functions of the core with more than four parameters, `self` and `cls` left out, by name."""
    found = []
    for path in modules(root).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if sum(one.arg not in ("self", "cls") for one in every) > MAX_PARAMETERS:
                    found.append(f"{path.stem}.{node.name}")
    return found


def pairs(root: Path) -> int:
    """Functions of the core that take the config and the settings together."""
    count = 0
    for path in modules(root).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = {one.arg for one in node.args.args}
                count += {"config", "settings"} <= names
    return count


def lines(root: Path, folder: str) -> int:
    """Lines of Python below a folder."""
    files = (root / folder).rglob("*.py")
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def column(root: Path) -> dict[str, str]:
    """The numbers of one checkout."""
    by_module, by_room = arrows(root), rooms(root)
    numbers: dict[str, int] = {
        "modules of the core": len(by_module),
        "arrows between modules": sum(map(len, by_module.values())),
        "layers of modules": _height(by_module),
        "rooms": len(by_room),
        "arrows between rooms": sum(map(len, by_room.values())),
        "layers of rooms": _height(by_room),
        "functions with more than four parameters": len(many_parameters(root)),
        "functions that take config and settings together": pairs(root),
    }
    numbers |= {f"lines of {folder}": lines(root, folder) for folder in PACKAGES}
    return {name: f"{number:,}" if number else "–" for name, number in numbers.items()}


def _height(graph: dict[str, set[str]]) -> int:
    """The number of layers; 0 if arrows go in a circle."""
    try:
        return max(layers(graph).values())
    except ValueError:
        return 0


def main() -> None:
    """Print a table with a column for each checkout that is named."""
    roots = [Path(name) for name in sys.argv[1:]] or [REPO_ROOT]
    columns = [column(root) for root in roots]
    print(f"| | {' | '.join(root.name for root in roots)} |")
    print(f"|---|{'---:|' * len(roots)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(one[name] for one in columns)} |")


if __name__ == "__main__":
    main()

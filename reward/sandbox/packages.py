"""Third-party packages that code in the sandbox may import, found before it is locked in."""

import importlib.util
import os
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def installed(name: str) -> ModuleSpec | None:
    """Where a package or module is installed, None if it is not, nor what it would lie in."""
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None


class PackageFinder:
    """Finds the allowed third-party packages, and nothing else beside them.

    They are looked up at once, since a program may not list the folder that holds them.
    """

    def __init__(self, paths: dict[str, str]) -> None:
        self.specs = {
            name: PathFinder.find_spec(name, [os.path.dirname(path)])
            for name, path in paths.items()
            if "." not in name
        }

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return self.specs.get(name) if path is None else None

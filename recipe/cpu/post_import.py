"""Run a function right after a module has been imported, whoever imports it, without importing it.

The shims patch modules (vLLM's above all) that take seconds to import and that most of a run's
processes never need, so the plugin must not import them itself.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Patch = Callable[[ModuleType], None]


def when_imported(module_name: str, patch: Patch) -> None:
    """Call `patch(module)` once the module's body has run; at once if it has been already."""
    module = sys.modules.get(module_name)
    if module is not None and not _is_being_imported(module):
        patch(module)
        return
    _finder().pending.setdefault(module_name, []).append(patch)


def _is_being_imported(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))


def _finder() -> _PostImportFinder:
    """The one finder of this process, put first on the meta path when it is first wanted."""
    for finder in sys.meta_path:
        if isinstance(finder, _PostImportFinder):
            return finder
    finder = _PostImportFinder()
    sys.meta_path.insert(0, finder)
    return finder


class _PostImportFinder(MetaPathFinder):
    """Finds nothing by itself: wraps the loader of the modules that somebody waits for."""

    def __init__(self) -> None:
        self.pending: dict[str, list[Patch]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.pending:
            return None
        patches = self.pending.pop(fullname)  # popped first: the search below passes here again
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            self.pending[fullname] = patches
            return None
        spec.loader = _PatchingLoader(spec.loader, patches)
        return spec


class _PatchingLoader(Loader):
    """The module's own loader, and then the functions that wait for the module."""

    def __init__(self, loader: Loader, patches: list[Patch]) -> None:
        self._loader = loader
        self._patches = patches

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Step out of the way first, so that the module looks as if it was imported plainly."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for patch in self._patches:
            patch(module)

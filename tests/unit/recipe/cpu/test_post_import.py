"""A function waits for a module without importing it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from recipe.cpu.post_import import when_imported


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of this test's own with a module `inner`, on the path, forgotten afterwards."""
    name = f"awaited_by_{tmp_path.name}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "inner.py").write_text("value = 1\nseen_by_body = value\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield f"{name}.inner"
    for module_name in (f"{name}.inner", name):
        sys.modules.pop(module_name, None)


def _double(module: ModuleType) -> None:
    module.value *= 2  # type: ignore[attr-defined]


def test_registering_does_not_import_the_module(package: str) -> None:
    when_imported(package, _double)
    assert package not in sys.modules


def test_the_function_runs_after_the_body_and_before_the_importer_goes_on(package: str) -> None:
    when_imported(package, _double)
    module = importlib.import_module(package)
    assert (module.seen_by_body, module.value) == (1, 2)


def test_an_imported_module_is_mended_at_once(package: str) -> None:
    module = importlib.import_module(package)
    when_imported(package, _double)
    assert module.value == 2


def test_several_functions_run_in_the_order_of_registration(package: str) -> None:
    when_imported(package, _double)
    when_imported(package, lambda module: setattr(module, "value", module.value + 1))
    assert importlib.import_module(package).value == 3


def test_a_mended_module_keeps_its_own_loader_and_source(package: str) -> None:
    when_imported(package, _double)
    module = importlib.import_module(package)
    assert module.__spec__ is not None and module.__spec__.loader is module.__loader__
    assert type(module.__loader__).__name__ == "SourceFileLoader"


def test_a_module_that_does_not_exist_stays_an_import_error(package: str) -> None:
    missing = package + "_missing"
    when_imported(missing, _double)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(missing)

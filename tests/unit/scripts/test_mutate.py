"""Mutations of a file, and swapping the code of what others have imported by name."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import mutate
import pytest
import torch
from lib.mutations import functions, mutations_of

SOURCE = '''
"""A docstring is no statement to remove."""
from dataclasses import dataclass
FACTOR = 2

def scaled(value: int = 3) -> int:
    """Twice the value."""
    assert value > 0, f"{value + 1}"
    return value * FACTOR

@dataclass(frozen=True)
class Pair:
    first: int = 1

    @property
    def total(self) -> int:
        return self.first + 1

    @classmethod
    def of(cls, values: list[int]) -> "Pair":
        found = [one for one in values if one]
        if found:
            found.append(1)
        return cls(found[-1])

async def waited(value: int) -> int:
    return value
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The source as a module of a repository."""
    path = tmp_path / "mutated_example.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("mutated_example", path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutated_example", made)
    monkeypatch.setattr(mutate, "REPO_ROOT", tmp_path)
    spec.loader.exec_module(made)
    yield made


def changes_of(path: Path) -> set[tuple[str, str]]:
    return {(one.function, one.what) for one in mutations_of(path)}


def test_each_operator_constant_condition_and_statement_is_changed_once(module: ModuleType) -> None:
    assert changes_of(Path(str(module.__file__))) == {
        ("", "`2` → `3`"),
        ("scaled", "`3` → `4`"),
        ("scaled", "`return value * FACTOR` → `return None`"),
        ("scaled", "`value * FACTOR` → `value / FACTOR`"),
        ("", "`1` → `2`"),
        ("Pair.total", "`return self.first + 1` → `return None`"),
        ("Pair.total", "`self.first + 1` → `self.first - 1`"),
        ("Pair.total", "`1` → `2`"),
        ("Pair.of", "`for … in … if one` → `for … in …`"),
        ("Pair.of", "`if found:` → `if not found:`"),
        ("Pair.of", "`found.append(1)` → `pass`"),
        ("Pair.of", "`1` → `2`"),
        ("Pair.of", "`return cls(found[-1])` → `return None`"),
        ("Pair.of", "`-1` → `1`"),
        ("waited", "`return value` → `return None`"),
    }


def test_the_functions_of_a_file_have_the_names_that_mutations_give(module: ModuleType) -> None:
    names = {name for name, _ in functions(ast.parse(SOURCE))}
    assert names == {"scaled", "Pair.total", "Pair.of", "waited"}


def swapped(module: ModuleType, what: str) -> None:
    path = Path(str(module.__file__))
    (mutation,) = [one for one in mutations_of(path) if one.what == what]
    mutate.swap(path, mutation.tree)


def test_a_function_that_was_imported_before_runs_the_changed_code(module: ModuleType) -> None:
    scaled = module.scaled
    swapped(module, "`value * FACTOR` → `value / FACTOR`")
    assert scaled(4) == 2


def test_defaults_and_constants_are_swapped_too(module: ModuleType) -> None:
    scaled = module.scaled
    swapped(module, "`3` → `4`")
    assert scaled() == 8
    swapped(module, "`2` → `3`")
    assert scaled() == 9


def test_properties_and_class_methods_of_objects_that_exist_change(module: ModuleType) -> None:
    pair = module.Pair(5)
    swapped(module, "`self.first + 1` → `self.first - 1`")
    assert pair.total == 4
    swapped(module, "`for … in … if one` → `for … in …`")
    assert module.Pair.of([0]).first == 1


def test_a_constant_is_swapped_where_it_was_imported_by_name(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ModuleType("other")
    other.FACTOR = module.FACTOR  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other", other)
    swapped(module, "`2` → `3`")
    assert other.FACTOR == 3


def test_the_calls_of_each_function_are_noted_until_the_code_is_swapped_back(
    module: ModuleType,
) -> None:
    path, called = Path(str(module.__file__)), set[mutate.Function]()
    mutate.note_calls(path, called)
    assert module.Pair(1).total == 2
    module.scaled(1)
    asyncio.run(module.waited(1))
    assert called == {(path, "Pair.total"), (path, "scaled"), (path, "waited")}
    called.clear()
    mutate.swap(path, ast.parse(SOURCE))
    module.scaled(1)
    assert called == set()


def test_an_autograd_function_is_swapped_though_its_classes_refer_to_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "import torch\nclass Twice(torch.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, value):\n        return 2.0 * value\n"
        "    @staticmethod\n    def backward(ctx, grad):\n        return 2.0 * grad\n"
    )
    path = tmp_path / "twice.py"
    path.write_text(source)
    found = ModuleType("twice")
    found.__file__ = str(path)
    exec(source, found.__dict__)
    monkeypatch.setattr(mutate, "module_of", lambda _: found)
    value = torch.tensor(3.0, requires_grad=True)
    mutate.swap(path, ast.parse(source.replace("2.0 * grad", "5.0 * grad")))
    twice = found.Twice.apply(value)
    twice.backward()
    assert value.grad is not None
    assert (twice.item(), value.grad.item()) == (6.0, 5.0)

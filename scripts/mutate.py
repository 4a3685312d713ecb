#!/usr/bin/env python
"""Mutation run: change one thing of the method at a time, and see whether a unit test fails.

    python scripts/mutate.py [--jobs N] [--at-least PERCENT] [FILE …]

The unit tests are collected and run once, in this process, which notes the functions that each
calls. Then each mutation has a forked copy of this process: it swaps the code of what the mutation
changes and runs the tests that call it, the fastest first, up to the first that fails. So neither
torch nor verl is imported again, and no configuration is composed again. docs/mutations.md says
what survives and why.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from lib.mutations import Mutation, functions, mutations_of

REPO_ROOT = Path(__file__).resolve().parents[1]
CORE = "recipe/online_refiner"
TARGETS = (
    *(f"{CORE}/method", f"{CORE}/queue", f"{CORE}/update", f"{CORE}/refine/refining.py"),
    "refiner_worker/acceptance.py",
)
TESTS = (
    "tests/unit/recipe/online_refiner",
    *(f"tests/unit/refiner_worker/test_{name}.py" for name in ("acceptance", "decoding")),
)
SKIPPED_TESTS = ("tests/unit/recipe/online_refiner/test_experiments.py",)
"""Half of the time, since every experiment is composed, and nothing in it is about the method."""
NOTE_CALL = "_note_call"
"""Name under which a module finds the function that notes its calls."""
PATIENCE = 10.0
"""Factor on a second and a test's usual time together, after which its process is ended."""
PLAIN = (bool, int, float, str, tuple, dict)
"""Constants of a module or class that are swapped."""

Function = tuple[Path, str]
"""A file and the qualified name of a function at its top level or in a class of it."""


class MutationRun:
    """A plugin of pytest that runs mutations in place of the tests.

    Attributes:
        survivors: after the run. total: mutations that were run. out_of_time: those that
            were ended by the time that a test took.
    """

    def __init__(self, files: Sequence[Path], jobs: int) -> None:
        self._files = files
        self._jobs = jobs
        self._terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        self._calls: dict[Function, list[pytest.Item]] = {}
        self._duration_s: dict[pytest.Item, float] = {}
        self.survivors: list[Mutation] = []
        self.total = 0
        self.out_of_time = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Called once, with the collected tests, in place of pytest's own loop."""
        self._run_unchanged(session.items)
        running: dict[int, Mutation] = {}
        for mutation in (one for path in self._files for one in mutations_of(path)):
            while len(running) == self._jobs:
                self._wait(running)
            self.total += 1
            running[self._fork(mutation)] = mutation
        while running:
            self._wait(running)
        return True  # in place of pytest's own loop

    def _run_unchanged(self, items: list[pytest.Item]) -> None:
        """Run every test and note what it calls. Fixtures of the session stay for the forks."""
        called: set[Function] = set()
        for path in self._files:
            note_calls(path, called)
        for item, following in zip(items, [*items[1:], items[0]], strict=True):
            called.clear()
            started = time.monotonic()
            reports = runtestprotocol(item, log=False, nextitem=following)
            self._duration_s[item] = time.monotonic() - started
            if any(report.failed for report in reports):
                raise pytest.UsageError(f"{item.nodeid} fails without a mutation")
            for function in called:
                self._calls.setdefault(function, []).append(item)
        for path in self._files:
            swap(path, ast.parse(path.read_text(encoding="utf-8")))
        for path in self._files:
            name = module_of(path).__name__
            users = {path, *(one for one in self._files if name in one.read_text("utf-8"))}
            found = {
                item for (one, _), items in self._calls.items() if one in users for item in items
            }
            self._calls[path, ""] = list(found)

    def _fork(self, mutation: Mutation) -> int:
        """The process that tries a mutation; its exit status is 0 if the mutation survives.

        Outside of functions it is tried by all tests that call a function of its file, or of a file
        that imports it.
        """
        chosen = self._calls.get((mutation.path, mutation.function), [])
        chosen = sorted(chosen, key=self._duration_s.__getitem__)
        process = os.fork()
        if process:
            return process
        limits_s = [PATIENCE * (1.0 + self._duration_s[item]) for item in chosen]
        try:
            swap(mutation.path, mutation.tree)
            is_killed = any(map(fails, chosen, [*chosen[1:], None], limits_s))
        except BaseException:
            is_killed = True
        os._exit(int(is_killed))

    def _wait(self, running: dict[int, Mutation]) -> None:
        process, status = os.wait()
        mutation = running.pop(process, None)  # a test may have left a process of its own
        late = status == signal.SIGALRM
        if mutation and (late or status == 0):
            where = f"{mutation.path.relative_to(REPO_ROOT)}:{mutation.line}"
            end = " (out of time)" if late else ""
            self._terminal.write(f"{where} {mutation.function}: {mutation.what}{end}\n")
            self.out_of_time += late
            self.survivors += [] if late else [mutation]


def note_calls(path: Path, called: set[Function]) -> None:
    """From now on add each function of a file to a set when it is called."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name, function in functions(tree):
        function.body.insert(0, ast.parse(f"{NOTE_CALL}({name!r})").body[0])
    vars(module_of(path))[NOTE_CALL] = lambda name: called.add((path, name))
    swap(path, tree)


def fails(item: pytest.Item, following: pytest.Item | None, limit_s: float) -> bool:
    """Run one test, in a process of its own: the process ends if the test takes longer."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    item.session._setupstate.teardown_exact(item)
    reports = runtestprotocol(item, log=False, nextitem=following)
    return any(report.failed for report in reports)


def module_of(path: Path) -> ModuleType:
    """The imported module of a file of the repository."""
    return sys.modules[".".join(path.relative_to(REPO_ROOT).with_suffix("").parts)]


# Swapping the code of what is imported.


def swap(path: Path, tree: ast.Module) -> None:
    """Make the functions, classes and constants of a file's module those of a changed file.

    Functions get new code and stay the same objects, since others have imported them by name.
    """
    module = module_of(path)
    changed = ModuleType(module.__name__)
    changed.__file__ = module.__file__
    exec(compile(tree, str(path), "exec"), changed.__dict__)
    for name, after in vars(changed).items():
        before = vars(module).get(name)
        if isinstance(before, PLAIN) and before != after and not name.startswith("__"):
            swap_everywhere(name, before, after)
        elif getattr(after, "__module__", None) == module.__name__:
            swap_code(before, after)


def swap_everywhere(name: str, before: Any, after: Any) -> None:
    """Set a constant in every module that has it, imported by its name or its own."""
    for module in list(sys.modules.values()):
        found = vars(module).get(name) if isinstance(module, ModuleType) else None
        if type(found) is type(before) and found == before:
            setattr(module, name, after)


def swap_code(before: Any, after: Any) -> None:
    """Give a function the code of another one, or the functions of a class those of another."""
    before, after = plain_function(before), plain_function(after)
    if isinstance(before, FunctionType) and isinstance(after, FunctionType):
        before.__code__ = after.__code__
        before.__defaults__, before.__kwdefaults__ = after.__defaults__, after.__kwdefaults__
    elif isinstance(before, type) and not issubclass(before, Enum):
        for name, value in vars(after).items():
            if isinstance(value, type) and not value.__qualname__.startswith(
                after.__qualname__ + "."
            ):
                continue  # of no text: torch gives an autograd function the class of its backward
            if isinstance(value, PLAIN) and name in vars(before) and not name.startswith("__"):
                setattr(before, name, value)
            else:
                swap_code(vars(before).get(name), value)


def plain_function(found: Any) -> Any:
    """The function inside of a method, a property or a decorator that says what it wraps."""
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, classmethod | staticmethod):
        found = found.__func__
    unwrap: Callable[[Any], Any] = inspect.unwrap
    return unwrap(found) if callable(found) and not isinstance(found, type) else found


def files_of(names: Sequence[str]) -> list[Path]:
    """The Python files that are named, or lie in a named folder."""
    paths = [(REPO_ROOT / name).resolve() for name in names]
    found = [one for path in paths for one in (path.rglob("*.py") if path.is_dir() else [path])]
    return sorted(path for path in found if path.stem != "__init__")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", default=TARGETS, metavar="FILE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--at-least", type=float, default=90.0, metavar="PERCENT")
    arguments = parser.parse_args()
    os.chdir(REPO_ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads of torch's pool, and waits for them
    run = MutationRun(files_of(arguments.files), arguments.jobs)
    options = ["-q", "-p", "no:cacheprovider", "-o", "timeout=0", *TESTS]
    options += [f"--ignore={name}" for name in SKIPPED_TESTS]
    status = pytest.main(options, plugins=[run])
    killed = run.total - len(run.survivors) - run.out_of_time
    percent = 100.0 * killed / max(run.total, 1)
    print(f"{killed} of {run.total} mutations were killed: {percent:.1f} %")
    print(f"{run.out_of_time} were ended by the time that a test took, and do not count as killed")
    return int(status != pytest.ExitCode.OK or percent < arguments.at_least)


if __name__ == "__main__":
    sys.exit(main())

"""Runs a test program by pytest itself, in the checker's process.

For those that import pytest or have its functions for setting up. The program has been executed by
then: pytest collects its module as if it had been imported from a file, and does what it does with
fixtures, marks, parameters, classes and cases of unittest. It reads no configuration, no conftest
and no plugins, writes nothing, and stops at the first failure. pytest is imported by this process
alone, and only for such a program.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from reward.sandbox.forms import NotATest

NAME = "pytest"
SET_UP = frozenset(
    f"{what}_{scope}"
    for what in ("setup", "teardown")
    for scope in ("module", "function", "class", "method")
)
INSTALL = "pytest is not installed beside the judge: pip install 'online-refiner[pytest]'"

_UNUSED_PLUGINS = (
    "cacheprovider", "doctest", "faulthandler", "junitxml", "logging", "pastebin", "stepwise",
    "terminal", "threadexception", "unraisableexception", "warnings",
)  # fmt: skip
_OPTIONS = (
    "--assert=plain", "--capture=no", "--maxfail=1", "--rootdir=/", "--noconftest",
    f"-c{os.devnull}", *(f"-pno:{name}" for name in _UNUSED_PLUGINS),
)  # fmt: skip
_OK, _FAILED, _NO_TESTS = 0, 1, 5
_NO_PARAMETERS = "got empty parameter set"
"""How pytest says why it skips a test."""


def wanted(names: Iterable[str]) -> bool:
    """Whether a test program that looks up these names and has been executed needs pytest."""
    return NAME in sys.modules or not SET_UP.isdisjoint(names)


def run(module: ModuleType, calls: Callable[[], int]) -> None:
    """Run all tests of `module`; raises what the first failure does.

    `calls` says how often the program has been called. If it has been before all tests are
    collected, then what cannot be collected, or lacks its parameters, is made of its results,
    which are wrong.

    Raises:
        NotATest: pytest cannot run it, or no test of it says anything of the program: all are
            skipped, or expected to fail without `strict`.
    """
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir = _stay
    watch = _Watch(module, calls)
    try:
        main = importlib.import_module("_pytest.config").main
    except ImportError as error:
        raise NotATest(INSTALL) from error
    watch.conclude(int(main(list(_OPTIONS), plugins=[watch])))


def _stay(path: Any) -> None:
    """In place of `os.chdir`, by which pytest returns to its start; no process may here."""


def is_refusal(error: BaseException) -> bool:
    """Whether pytest's own exceptions say that a test does not want to be run."""
    library: Any = sys.modules.get(NAME)
    ways = (library.skip, library.exit, library.xfail) if library else ()
    return isinstance(error, tuple(way.Exception for way in ways))


class _Watch:
    """A plugin of pytest's: collects one module and remembers what became of its tests."""

    def __init__(self, module: ModuleType, calls: Callable[[], int]) -> None:
        self.module = module
        self.calls = calls
        self.collected = True
        self.of_results = False
        self.error: BaseException | None = None
        self.items: Mapping[str, Any] = {}
        self.telling = 0

    def pytest_collection(self, session: Any) -> bool:
        kind = importlib.import_module(NAME).Module
        program: Any = type("Program", (kind,), {"_getobj": lambda node: self.module})
        path = Path(f"/{self.module.__name__}.py")
        session.items = list(session.genitems(program.from_parent(session, path=path)))
        session.testscollected = len(session.items)
        self.of_results = self.calls() > 0
        self.items = {item.nodeid: item for item in session.items}
        return True

    def pytest_collectreport(self, report: Any) -> None:
        self.collected &= not report.failed

    def pytest_pyfunc_call(self, pyfuncitem: Any) -> bool | None:
        """Run what is asynchronous, for which pytest itself has only plugins."""
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        import asyncio

        names = pyfuncitem._fixtureinfo.argnames
        asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
        return True

    def pytest_exception_interact(self, call: Any) -> None:
        self.error = self.error or call.excinfo.value

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count the tests that could have failed."""
        if report.when != "call" or report.failed:
            return
        expected = hasattr(report, "wasxfail")
        marks = self.items[report.nodeid].iter_markers("xfail") if expected else ()
        self.telling += any(mark.kwargs.get("strict") for mark in marks) or (
            report.passed and not expected
        )

    def conclude(self, status: int) -> None:
        """Raise what the end of the session means, if it is not success."""
        if not self.collected and self.calls():
            raise self.error or AssertionError("no tests can be made of the results")
        missing = _is_lookup(self.error) and not self.of_results
        if self.collected and status == _FAILED and not missing:
            raise self.error or AssertionError("a test that should fail passes")
        if status not in (_OK, _NO_TESTS):
            raise NotATest(f"pytest: {self.error or f'exit status {status}'}") from self.error
        if self.items and not self.telling:
            if self.of_results and any(map(_has_no_parameters, self.items.values())):
                raise AssertionError("the results make no parameters")
            raise NotATest("every test is skipped or expected to fail")


def _is_lookup(error: BaseException | None) -> bool:
    """Whether a fixture was asked for that there is not."""
    return error is not None and type(error).__name__ == "FixtureLookupError"


def _has_no_parameters(item: Any) -> bool:
    reasons = (str(mark.kwargs.get("reason", "")) for mark in item.iter_markers("skip"))
    return any(reason.startswith(_NO_PARAMETERS) for reason in reasons)

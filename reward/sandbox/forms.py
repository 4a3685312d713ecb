"""The forms of a test program beside HumanEval's `check`: test functions and unittest cases.

Runs in the checker's process. A test program that imports pytest is run by that (`suite`); others
do not need it: their functions are called one after another. unittest, asyncio and pytest are
imported only if a test uses them: each fork of a zygote that holds them would cost more.
"""

import contextlib
import importlib
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

_PREFIX = "test"


class NotATest(Exception):
    """The test program asks for what cannot be run here; the message says what."""


def silence_main(names: Iterable[str]) -> None:
    """Keep `unittest.main()` and `pytest.main()` in a test program from running it themselves."""
    for name in {"unittest", "pytest"}.intersection(names):
        with contextlib.suppress(ImportError):  # not installed: the test program says so itself
            library: Any = importlib.import_module(name)
            library.main = lambda *args, **kwargs: 0


def run(namespace: dict[str, Any]) -> None:
    """Run all test functions and cases that `namespace` holds; raises what the first failure does.

    Raises:
        NotATest: a function wants a fixture, or everything was skipped.
    """
    values = list(namespace.items())
    for name, value in values:
        if name.startswith(_PREFIX) and isinstance(value, types.FunctionType):
            _run_function(name, value)
    for _, value in values:
        if isinstance(value, type) and value.__module__ == namespace["__name__"]:
            _run_class(value)


def _run_function(name: str, function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    wanted = [one.name for one in parameters if one.default is inspect.Parameter.empty]
    if wanted:
        raise NotATest(f"{name} wants the fixtures {', '.join(sorted(wanted))}")
    outcome = function()
    if inspect.iscoroutine(outcome):
        import asyncio

        asyncio.run(outcome)


def _run_class(kind: type) -> None:
    if any(base.__module__ == "unittest.case" for base in kind.__mro__):
        _run_case(kind)
    elif kind.__name__.startswith("Test"):
        for name, _ in inspect.getmembers(kind, inspect.isfunction):
            if name.startswith(_PREFIX):
                _run_function(name, getattr(kind(), name))


def _run_case(kind: Any) -> None:
    import unittest

    result: Any = unittest.TestResult()
    result.failfast = True
    errors: list[BaseException] = []

    def remember(test: Any, error: Any) -> None:
        errors.append(error[1])
        result.stop()

    def remember_sub(test: Any, subtest: Any, error: Any) -> None:
        if error is not None:
            remember(test, error)

    result.addError = result.addFailure = remember
    result.addSubTest = remember_sub
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(kind)
    count = suite.countTestCases()
    suite.run(result)
    if errors:
        raise errors[0]
    if result.unexpectedSuccesses:
        raise AssertionError("unexpected success")
    if count and result.testsRun == len(result.skipped):
        raise NotATest(f"all tests of {kind.__name__} are skipped")

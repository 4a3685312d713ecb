"""The forms of a test program beside HumanEval's `check`: pytest functions and unittest cases.

Runs in the checker's process. pytest itself is not needed: functions are called one after another,
once per set of parameters where they are marked with `parametrize`. unittest and asyncio are
imported only if a test uses them: each fork of a zygote that holds them would cost more.
"""

import inspect
import itertools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_PREFIX = "test"


class NotATest(Exception):
    """The test program asks for what cannot be run here; the message says what."""


def silence_main(names: Iterable[str]) -> None:
    """Keep a test program that ends with `unittest.main()` from ending the process."""
    if "unittest" in names:
        import unittest

        unittest.main = lambda *args, **kwargs: None  # type: ignore[assignment]


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
    for arguments in _parameter_sets(function):
        parameters = inspect.signature(function).parameters.values()
        wanted = {one.name for one in parameters if one.default is inspect.Parameter.empty}
        missing = wanted - arguments.keys()
        if missing:
            raise NotATest(f"{name} wants the fixtures {', '.join(sorted(missing))}")
        outcome = function(**arguments)
        if inspect.iscoroutine(outcome):
            import asyncio

            asyncio.run(outcome)


def _parameter_sets(function: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """What pytest's `parametrize` marks ask for: every combination of their sets."""
    marks = [m for m in getattr(function, "pytestmark", []) if m.name == "parametrize"]
    choices = [list(_parameters(*mark.args[:2])) for mark in marks]
    for combination in itertools.product(*choices):
        yield {name: value for part in combination for name, value in part.items()}


def _parameters(names: Any, rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    for row in rows:
        values = getattr(row, "values", row)  # pytest.param
        yield dict(zip(names, [values] if len(names) == 1 else values, strict=True))


def _run_class(kind: type) -> None:
    if any(base.__module__ == "unittest.case" for base in kind.__mro__):
        _run_case(kind)
    elif kind.__name__.startswith("Test"):
        for name, value in list(vars(kind).items()):
            if name.startswith(_PREFIX) and isinstance(value, types.FunctionType):
                instance = kind()
                setup = getattr(instance, "setup_method", lambda: None)
                setup()
                _run_function(name, getattr(instance, name))


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

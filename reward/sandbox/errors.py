"""A candidate's exceptions, as its test sees them.

They come as plain data: the names of the class and of its bases, the text, the arguments. Built-in
classes are themselves. A class of the program's that a test waits for by its name is one that the
checker makes; whether what was raised is one is the candidate's to say, as any answer is.
"""

import ast
import builtins
import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

TEXT_LENGTH = 200
_STOPS = frozenset({"StopIteration", "StopAsyncIteration"})
_STANDARD = {
    "JSONDecodeError": "json",
    "InvalidOperation": "decimal",
    "StatisticsError": "statistics",
}
_WAITING = frozenset({"raises", "assertRaises", "assertRaisesRegex", "suppress"})
_MOST_BASES = 32


def awaited(test: str, candidates: set[str]) -> set[str]:
    """Those of `candidates` that a test program uses as classes of exceptions.

    They stand where a class of exceptions has to stand, or are called as such; and the test does
    not call them, since it would get an object that the program did not make.
    """
    if not any(name[:1].isupper() for name in candidates):
        return set()
    nodes = list(ast.walk(ast.parse(test)))
    called = {_id(node.func) for node in nodes if isinstance(node, ast.Call)}
    named = {_id(node) for node in nodes if _id(node).endswith(("Error", "Exception"))}
    places = {_id(part) for node in nodes for place in _places(node) for part in ast.walk(place)}
    capital = {name for name in named if name[0].isupper()}
    return (places | capital) & candidates - called


def _places(node: ast.AST) -> Iterator[ast.expr]:
    """Where a statement or a call has classes of exceptions."""
    if isinstance(node, ast.ExceptHandler) and node.type:
        yield node.type
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else _id(node.func)
        if name in _WAITING:
            yield from node.args if name == "suppress" else node.args[:1]
            yield from (one.value for one in node.keywords if one.arg == "expected_exception")
        elif name in ("isinstance", "issubclass"):
            yield from node.args[1:]


def _id(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


class Errors:
    """Makes exceptions of what came over the connection.

    Attributes:
        own: the program's classes that the test waits for, by name.
        expects_stop: whether the test names what ends an iteration.
    """

    def __init__(self, own: Iterable[str] = (), names: Iterable[str] = ()) -> None:
        self.own: dict[str, type] = {name: type(name, (Exception,), {}) for name in own}
        self.expects_stop = not _STOPS.isdisjoint(names)

    def build(self, names: Sequence[str], text: str, arguments: Sequence[Any]) -> Exception:
        """The exception whose class and bases have these names; a RuntimeError for those of none.

        What ends an iteration is an ordinary error (as in PEP 479): raised by a call inside a
        test's loop or `all(...)`, it would end that as if all had been well. Tests that name it
        expect it.
        """
        kinds = [kind for kind in map(self._kind, names[:_MOST_BASES]) if kind]
        try:
            if not kinds or (names[0] in _STOPS and not self.expects_stop):
                raise TypeError
            if kinds[0] is getattr(builtins, names[0], None):
                error: Exception = kinds[0](*arguments)
                if str(error)[:TEXT_LENGTH] == text:
                    return error
            return _made(type(names[0], tuple(kinds), {"__str__": lambda _: text}), arguments)
        except (TypeError, ValueError):
            return RuntimeError(f"{names[0] if names else ''}: {text}")

    def _kind(self, name: str) -> type | None:
        """The class of exceptions of that name, or None."""
        if name in self.own:
            return self.own[name]
        library: Any = importlib.import_module(_STANDARD.get(name, "builtins"))
        kind = getattr(library, name, None)
        usable = isinstance(kind, type) and issubclass(kind, Exception)
        return kind if usable and (self.expects_stop or name not in _STOPS) else None


def _made(kind: Any, arguments: Sequence[Any]) -> Any:
    try:
        return kind(*arguments)
    except TypeError:  # a class with other parameters than what it hands on to its base
        return kind.__new__(kind, *arguments)

"""Values between processes as JSON, from and to built-in types only.

Encoding happens beside untrusted code, so it asks no object for anything: a value is taken apart
with the methods of the built-in type it descends from, and a subclass arrives as its plain content
(its own `__eq__` stays behind). Decoding builds nothing but built-in containers and numbers, and
the standard library's fractions, decimals and dates.
"""

import json
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_DEPTH = 64
_ITERATORS = frozenset(
    {"generator", "map", "filter", "zip", "enumerate", "reversed", "range_iterator"}
    | {"list_iterator", "tuple_iterator", "set_iterator", "dict_keyiterator", "str_iterator"}
    | {"dict_keys", "dict_values", "dict_items", "chain", "islice", "permutations", "combinations"}
)
_MAX_ITEMS = 1_000_000


class Opaque:
    """A value of a type that does not travel: equal to nothing, only its truth is known."""

    def __init__(self, name: str, truth: bool) -> None:
        self.name, self.truth = name, truth

    def __bool__(self) -> bool:
        return self.truth

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.name}>"


def result_json(value: Any) -> str:
    """A function's result as plain JSON, for the judge to compare.

    Tuples become lists and keys strings. What has no JSON form becomes {"__unsupported__": name},
    which equals no expected output.
    """
    return json.dumps(_plain(value, 0))


def _plain(value: Any, depth: int) -> Any:
    base = _base(value)
    if depth >= MAX_DEPTH:
        return {"__unsupported__": "nesting"}
    if base in _ATOMS:
        return _ATOMS[base](value)
    if base in (list, tuple):
        return [_plain(item, depth + 1) for item in base.__iter__(value)]
    if base is dict:
        items = list(dict.items(value))
        if all(type(key) in (str, int, float, bool, type(None)) for key, _ in items):
            return {key: _plain(item, depth + 1) for key, item in items}
    if base is None and (scalar := _numpy_scalar(value)) is not None:
        return _plain(scalar, depth + 1)
    return {"__unsupported__": _name(value)}


def dumps(value: Any) -> str:
    """`value` for `loads`, with the types that assertions tell apart."""
    return json.dumps(_tagged(value, 0))


def loads(text: str | bytes) -> Any:
    """The value that `dumps` wrote.

    Raises:
        ValueError, RecursionError, TypeError, KeyError: `text` is no such value.
    """
    return _untagged(json.loads(text))


def _tagged(value: Any, depth: int) -> Any:
    """Atoms as they are, lists as JSON arrays, all else as {type: content}."""
    base = _base(value)
    if depth >= MAX_DEPTH:
        return {"opaque": ["nesting", True]}
    if base in _ATOMS:
        return _ATOMS[base](value)
    if base is complex:
        return {"complex": [complex.__add__(value, 0).real, complex.__add__(value, 0).imag]}
    if base in (bytes, bytearray):
        return {base.__name__: list(base.__iter__(value))}
    if base is range:
        return {"range": [value.start, value.stop, value.step]}
    if base in _PARTS:
        parts = _PARTS[base](value)
        return {"opaque": [_name(value), True]} if parts is None else {base.__name__: parts}
    if base is dict:
        pairs = [[_tagged(k, depth + 1), _tagged(v, depth + 1)] for k, v in dict.items(value)]
        return {"dict": pairs}
    if base is not None:
        items = [_tagged(item, depth + 1) for item in base.__iter__(value)]
        return items if base is list else {base.__name__: items}
    if type(value).__name__ in _ITERATORS and type(value).__module__ in ("builtins", "itertools"):
        return {"iterator": [_tagged(item, depth + 1) for item in _bounded(value)]}
    if (scalar := _numpy_scalar(value)) is not None:
        return _tagged(scalar, depth + 1)
    return {"opaque": [_name(value), bool(value)]}


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((name, content),) = value.items()
    if name == "dict":
        return {_untagged(k): _untagged(v) for k, v in content}
    if name == "opaque":
        return Opaque(str(content[0]), bool(content[1]))
    try:
        return _BUILDERS[name]([_untagged(item) for item in content])
    except ArithmeticError as error:
        raise ValueError(f"no {name}: {content!r}"[:200]) from error


def _fraction(value: Fraction) -> list[int]:
    """Of the slots, since a subclass may give other properties; integers or an error."""
    slots = vars(Fraction)
    return [int.__pos__(slots[name].__get__(value)) for name in ("_numerator", "_denominator")]


def _decimal(value: Decimal) -> list[str] | None:
    """Comparing a signalling NaN is an error, which would be the test's."""
    return None if Decimal.is_snan(value) else [Decimal.__str__(value)]


def _naive(kind: Any) -> Callable[[Any], list[str] | None]:
    """A date or a time by its text; a time zone is an object of the candidate's, and stays behind.

    The base's own descriptors are asked.
    """
    zone = vars(kind).get("tzinfo")

    def parts(value: Any) -> list[str] | None:
        if zone is not None and zone.__get__(value) is not None:
            return None
        return [kind.isoformat(value)]

    return parts


def _timedelta(value: timedelta) -> list[int]:
    slots = vars(timedelta)
    return [slots[name].__get__(value) for name in ("days", "seconds", "microseconds")]


_PARTS: dict[Any, Callable[[Any], list[Any] | None]] = {
    Fraction: _fraction,
    Decimal: _decimal,
    date: _naive(date),
    datetime: _naive(datetime),
    time: _naive(time),
    timedelta: _timedelta,
}
"""What a value of the standard library is made of; None if it does not travel."""
_ATOMS: dict[Any, Callable[[Any], Any]] = {
    bool: bool,
    int: int.__pos__,
    float: float.__pos__,
    str: str.__str__,
    type(None): lambda value: None,
}
_BUILDERS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "bytes": bytes,
    "bytearray": bytearray,
    "iterator": iter,
    "range": lambda parts: range(*parts),
    "complex": lambda parts: complex(*parts),
    "Fraction": lambda parts: Fraction(*map(int, parts)),
    "Decimal": lambda parts: Decimal("".join(parts)),
    "date": lambda parts: date.fromisoformat(*parts),
    "datetime": lambda parts: datetime.fromisoformat(*parts),
    "time": lambda parts: time.fromisoformat(*parts),
    "timedelta": lambda parts: timedelta(*parts),
}
_BASES = (
    bool, int, float, str, type(None), list, tuple, dict, set, frozenset, complex, bytes,
    bytearray, range, deque, *_PARTS,
)  # fmt: skip


def _base(value: Any) -> Any:
    """The built-in type that `value` is or descends from; type's own attributes are asked."""
    kind = type(value)
    if kind in _BASES:
        return kind
    mro = type.mro(kind) if kind is not type else ()
    return next((base for base in mro if base in _BASES), None)


def _numpy_scalar(value: Any) -> Any:
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ != "ndarray" and hasattr(kind, "item"):
        plain = kind.item(value)
        return None if type(plain) is kind else plain
    return None


def _bounded(items: Any) -> list[Any]:
    found = []
    for item in items:
        found.append(item)
        if len(found) > _MAX_ITEMS:
            break
    return found


def _name(value: Any) -> str:
    return str(type(value).__name__)[:40]

"""JSON with integers of any sensible length. Standard library only.

Python refuses to read or write integers of more than 4300 digits, since that takes time quadratic
in their length. Test cases hold such integers, so they are read in pieces here, up to MAX_DIGITS.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAX_DIGITS = 100_000

_PIECE = 4000  # digits that Python converts at once
_lock = threading.Lock()


class UnreadableNumber(ValueError):
    """An integer that is too long to be converted; it says how long."""


def loads(text: str | bytes) -> Any:
    """`json.loads`, for integers of up to MAX_DIGITS digits.

    Raises:
        ValueError: not JSON, or a longer integer (UnreadableNumber).
        RecursionError: nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError:
        raise
    except ValueError:  # an integer beyond Python's own limit
        return json.loads(text, parse_int=integer)


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps`, for integers of any length."""
    try:
        return json.dumps(value, **options)
    except ValueError:
        with any_length():
            return json.dumps(value, **options)


def integer(digits: str) -> int:
    """The integer of that text, which may start with a minus sign. Raises UnreadableNumber."""
    if len(digits) <= _PIECE:
        return int(digits)
    if len(digits) > MAX_DIGITS:
        raise UnreadableNumber(f"an integer of {len(digits)} digits, at most {MAX_DIGITS}")
    sign, digits = (-1, digits[1:]) if digits[0] == "-" else (1, digits)
    value = 0
    for start in range(0, len(digits), _PIECE):
        piece = digits[start : start + _PIECE]
        value = value * 10 ** len(piece) + int(piece)
    return sign * value


@contextmanager
def any_length() -> Iterator[None]:
    """Lift Python's limit on the digits of an integer meanwhile."""
    with _lock:
        before = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        try:
            yield
        finally:
            sys.set_int_max_str_digits(before)

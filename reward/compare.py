"""Whether a program's output is the expected one. Outputs are hostile: no step is quadratic.

Ours, stricter than the graders in common use: order and multiplicity count, integers are exact.
"""

import json
import math
import re
from typing import Any

FLOAT_TOLERANCE = 1e-6

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MAX_DECIMAL_CHARS = 400  # beyond it, parsing a decimal is slow and its value overflows anyway
_MAX_INT_DIGITS = 4000  # Python's own limit is 4300
_SLACK_BYTES = 65536


def stdout_equal(expected: str, got: bytes) -> bool:
    """Token by token per line, in order and with multiplicity, case-sensitive.

    Line ends and blanks around lines do not count, nor do blank lines. Two integers are equal by
    value; where the expected token is a decimal (with a point or an exponent), by value up to
    FLOAT_TOLERANCE, absolute or relative. NaN and infinities are words like any other.
    """
    text = got.decode("utf-8", "surrogateescape")
    expected_lines, lines = _lines(expected), _lines(text)
    if len(expected_lines) != len(lines):
        return False
    return all(map(_line_equal, expected_lines, lines))


def _lines(text: str) -> list[str]:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in map(str.strip, text.split("\n")) if line]


def _line_equal(expected: str, got: str) -> bool:
    if expected == got:
        return True
    tokens = expected.split()
    got_tokens = got.split(None, len(tokens))  # at most one more piece than wanted
    return len(tokens) == len(got_tokens) and all(map(token_equal, tokens, got_tokens))


def token_equal(expected: str, got: str) -> bool:
    """Whether two words are equal, as words or as numbers."""
    if expected == got:
        return True
    if _INTEGER.fullmatch(expected):
        return bool(_INTEGER.fullmatch(got)) and _canonical(expected) == _canonical(got)
    if max(len(expected), len(got)) > _MAX_DECIMAL_CHARS:
        return False
    if _DECIMAL.fullmatch(expected) and _DECIMAL.fullmatch(got):
        return floats_close(float(expected), float(got))
    return False


def _canonical(integer: str) -> str:
    digits = integer.lstrip("+-").lstrip("0")
    return ("-" if integer[0] == "-" and digits else "") + digits


def floats_close(expected: float, got: float) -> bool:
    """Equal up to FLOAT_TOLERANCE, absolute or relative to `expected`; both must be finite."""
    if not (math.isfinite(expected) and math.isfinite(got)):
        return False
    return abs(expected - got) <= FLOAT_TOLERANCE * max(1.0, abs(expected))


def result_equal(expected: Any, got: bytes) -> bool:
    """Whether a call's result, as JSON that an untrusted process wrote, is the expected value.

    `expected` is what `normalise` returns.
    """
    if len(got) > 16 * len(json.dumps(expected)) + _SLACK_BYTES:
        return False  # so much longer that parsing it would only cost memory
    try:
        value = json.loads(got, parse_int=parse_integer)
    except (ValueError, RecursionError):
        return False
    return values_equal(expected, value)


def parse_integer(digits: str) -> int | str:
    """An integer, or its digits where it is too long to convert in linear time."""
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else _canonical(digits)


def normalise(value: Any) -> Any:
    """An expected value in the form that results have: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value), parse_int=parse_integer)


def values_equal(expected: Any, got: Any) -> bool:
    """Python's equality of JSON values, with float tolerance where a float is expected.

    NaN equals NaN. Recursion is bounded by the depth of `expected`.
    """
    if isinstance(expected, list):
        return (
            isinstance(got, list)
            and len(expected) == len(got)
            and all(map(values_equal, expected, got))
        )
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and expected.keys() == got.keys()
            and all(values_equal(value, got[key]) for key, value in expected.items())
        )
    if isinstance(got, list | dict):
        return False
    if isinstance(expected, float) and isinstance(got, int | float):
        return _number_equal(expected, got)
    return expected == got


def _number_equal(expected: float, got: float | int) -> bool:
    if math.isnan(expected):
        return isinstance(got, float) and math.isnan(got)
    if expected == got:
        return True
    try:
        return floats_close(expected, float(got))
    except OverflowError:
        return False

"""Whether a program's output is the expected one. Outputs are hostile: no step is quadratic.

Ours, stricter than the graders in common use: order and multiplicity count, integers are text.
"""

import math
import re
from typing import Any

from reward import jsontext

FLOAT_TOLERANCE = 1e-6

# No plus sign and no superfluous zeros in front: those are bit strings and codes.
_DECIMAL = re.compile(rb"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(rb"-?[0-9]+")
_MAX_DECIMAL_CHARS = 400  # beyond it, parsing a decimal is slow and its value overflows anyway
_SLACK_BYTES = 65536
DIFFERENT = object()
"""Equals no value that a test expects."""


def stdout_equal(expected: str, got: bytes) -> bool:
    """Word by word per line, in order and with multiplicity, case-sensitive.

    Blanks are the six of ASCII; they do not count around lines and words, nor do blank lines. Where
    the expected word is a decimal (with a point or an exponent), numbers are equal by value up to
    FLOAT_TOLERANCE, absolute or relative. All other words, integers too, are text.
    """
    expected_lines, lines = _lines(as_bytes(expected)), _lines(got)
    if len(expected_lines) != len(lines):
        return False
    return all(map(_line_equal, expected_lines, lines))


def as_bytes(text: str) -> bytes:
    """Expected text as a program would write it; half a character stands for a byte of no text."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _lines(text: bytes) -> list[bytes]:
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return [line for line in map(bytes.strip, text.split(b"\n")) if line]


def _line_equal(expected: bytes, got: bytes) -> bool:
    if expected == got:
        return True
    words = expected.split()
    got_words = got.split(None, len(words))  # at most one more piece than wanted
    return len(words) == len(got_words) and all(map(word_equal, words, got_words))


def word_equal(expected: bytes, got: bytes) -> bool:
    """Whether two words are equal, as text or as decimals."""
    if expected == got:
        return True
    if _INTEGER.fullmatch(expected) or max(len(expected), len(got)) > _MAX_DECIMAL_CHARS:
        return False
    if _DECIMAL.fullmatch(expected) and _DECIMAL.fullmatch(got):
        return floats_close(float(expected), float(got))
    return False


def floats_close(expected: float, got: float) -> bool:
    """Equal up to FLOAT_TOLERANCE, absolute or relative to `expected`; both must be finite."""
    if not (math.isfinite(expected) and math.isfinite(got)):
        return False
    return abs(expected - got) <= FLOAT_TOLERANCE * max(1.0, abs(expected))


def result_equal(expected: Any, got: bytes) -> bool:
    """Whether a call's result, as JSON that an untrusted process wrote, is the expected value.

    `expected` is what `normalise` returns.
    """
    value = parse_result(expected, got)
    return value is not DIFFERENT and values_equal(expected, value)


def parse_result(expected: Any, got: bytes) -> Any:
    """The result, or something that equals nothing: if it is no JSON, or far too long."""
    if len(got) > 16 * len(jsontext.dumps(expected)) + _SLACK_BYTES:
        return DIFFERENT  # so much longer that parsing it would only cost memory
    try:
        return jsontext.loads(got)
    except (ValueError, RecursionError):
        return DIFFERENT


def normalise(value: Any) -> Any:
    """An expected value in the form that results have: tuples are lists, keys are strings."""
    return jsontext.loads(jsontext.dumps(value))


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

"""Output equality: tables of equal and unequal pairs."""

import json
import time
from typing import Any

import pytest

from reward.compare import normalise, result_equal, stdout_equal, word_equal
from reward.jsontext import integer

EQUAL_TOKENS = [
    ("7", "7"),
    ("-7", "-7"),
    ("00000101", "00000101"),
    ("+5", "+5"),
    ("007.50", "007.50"),
    ("0.5", ".5"),
    ("0.5", "0.5000004"),
    ("1e6", "1000000"),
    ("1000000.0", "1000000.9"),  # relative 1e-6
    ("nan", "nan"),
    ("inf", "inf"),
    ("YES", "YES"),
]
UNEQUAL_TOKENS = [
    ("YES", "yes"),
    ("1000000", "1000001"),
    ("7", "7.0"),  # an integer was asked for
    ("7", "-7"),
    ("0.5", "0.50001"),
    ("0.5", "nan"),
    ("0.5", "inf"),
    ("nan", "NaN"),
    ("1e999", "2e999"),
    ("9" * 30, "9" * 29 + "8"),
    ("1", "1_0"),
    ("1", "\u0661"),  # a digit that is not ASCII
    ("0.5", "0x.8p0"),
    # Bit strings, codes and signs are text.
    ("00000101", "101"),
    ("101", "00000101"),
    ("5", "+5"),
    ("+5", "5"),
    ("-0", "0"),
    ("9" * 30, "0" + "9" * 30),
    ("0.5", "+0.5"),
    ("0.5", "00.5"),
    ("007.50", "7.5"),
    ("000.5", ".5"),
]


@pytest.mark.parametrize(("expected", "got"), EQUAL_TOKENS)
def test_tokens_that_are_equal(expected: str, got: str) -> None:
    assert word_equal(expected.encode(), got.encode())


@pytest.mark.parametrize(("expected", "got"), UNEQUAL_TOKENS)
def test_tokens_that_differ(expected: str, got: str) -> None:
    assert not word_equal(expected.encode(), got.encode())


@pytest.mark.parametrize(("expected", "got"), [pair for pair in UNEQUAL_TOKENS if pair[0] != "7"])
def test_unequal_tokens_differ_both_ways(expected: str, got: str) -> None:
    assert not word_equal(got.encode(), expected.encode())


EQUAL_OUTPUTS = [
    ("1\n2\n", "1\n2"),
    ("1\n2\n", "1\r\n2\r\n"),
    ("1 2\n", "  1   2  \n\n"),
    ("1\n2", "\n\n1\n\n2\n"),
    ("", "\n \n"),
    ("a\tb", "a b"),
    ("a b", "a\v\fb\t"),
    ("a\u00a0b", "a\u00a0b"),
]
UNEQUAL_OUTPUTS = [
    ("1\n2", "2\n1"),  # order of lines
    ("1 2", "2 1"),  # order of words
    ("1 2", "1\n2"),  # lines count
    ("YES\nNO\nYES\nNO", "YES\nNO"),  # multiplicity
    ("1", "1 1"),
    ("1 2", "1"),
    ("1", ""),
    ("ab", "a b"),
    # Blanks that only Unicode knows are text, within words, around them, and as ends of lines.
    ("a b", "a\u00a0b"),
    ("a", "a\u00a0"),
    ("a b", "a\x1fb"),
    ("a", "\x1ca"),
    ("a\nb", "a\u2028b"),
    ("a\nb", "a\x85b"),
    ("a b", "a\u3000b"),
    ("a\n", "a\n\u2028"),
]


@pytest.mark.parametrize(("expected", "got"), EQUAL_OUTPUTS)
def test_outputs_that_are_equal(expected: str, got: str) -> None:
    assert stdout_equal(expected, got.encode())
    assert stdout_equal(got, expected.encode())


@pytest.mark.parametrize(("expected", "got"), UNEQUAL_OUTPUTS)
def test_outputs_that_differ(expected: str, got: str) -> None:
    assert not stdout_equal(expected, got.encode())
    assert not stdout_equal(got, expected.encode())


def test_bytes_that_are_no_text_are_compared_not_refused() -> None:
    assert not stdout_equal("1", b"\xff\xfe1")


def test_hostile_outputs_are_compared_in_linear_time() -> None:
    start = time.monotonic()
    digits = b"9" * 4_000_000
    assert not stdout_equal("1", digits)
    assert not stdout_equal("1.5", digits)
    assert not stdout_equal("1 2", b"1 " * 2_000_000)
    assert not result_equal([1], b"[" * 4_000_000)
    assert not result_equal(1, digits)
    assert time.monotonic() - start < 2


EQUAL_RESULTS: list[tuple[Any, Any]] = [
    ([1, 2], [1, 2]),
    ((1, (2,)), [1, [2]]),
    ({"1": 2}, {1: 2}),
    (0.1 + 0.2, 0.3),
    (2.0, 2),
    ([float("nan")], [float("nan")]),
    (True, True),
    (None, None),
    ("a", "a"),
    ([], []),
]
UNEQUAL_RESULTS: list[tuple[Any, Any]] = [
    ([1, 2], [2, 1]),
    ([1], 1),
    (1, [1]),
    ("1", 1),
    (2, 2.0000001),
    (0.5, 0.50001),
    (0.5, "0.5"),
    ({"a": 1}, {"a": 1, "b": 2}),
    ([1], {"0": 1}),
    (None, 0),
    (float("inf"), 10**400),
    ("x", {"__unsupported__": "x"}),
]


@pytest.mark.parametrize(("expected", "got"), EQUAL_RESULTS)
def test_results_that_are_equal(expected: Any, got: Any) -> None:
    assert result_equal(_expected(expected), _sent(got))


@pytest.mark.parametrize(("expected", "got"), UNEQUAL_RESULTS)
def test_results_that_differ(expected: Any, got: Any) -> None:
    assert not result_equal(_expected(expected), _sent(got))


def test_what_is_not_json_differs() -> None:
    assert not result_equal(1, b"")
    assert not result_equal(1, b"1;")
    assert not result_equal("\ud800", b"\xff")


def test_long_integers_are_compared_as_integers() -> None:
    expected = integer("9" * 5000)
    assert result_equal(expected, b"9" * 5000)
    assert not result_equal(expected, b"9" * 5001)
    assert not result_equal(expected, b"9" * 4999 + b"8")
    assert not result_equal(expected, b'"' + b"9" * 5000 + b'"')  # text is no number
    assert result_equal(-expected, b"-" + b"9" * 5000)
    assert result_equal([[expected]], b"[[" + b"9" * 5000 + b"]]")


def _expected(value: Any) -> Any:
    return normalise(value)


def _sent(value: Any) -> bytes:
    return json.dumps(value).encode()

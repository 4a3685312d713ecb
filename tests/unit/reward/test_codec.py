"""Values travel as what they are made of, and hostile objects arrive as plain content."""

import json
import math
from collections import Counter, OrderedDict, deque, namedtuple
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from reward.sandbox import codec

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -0.0,
        10**40,
        1.5,
        float("inf"),
        "text \ud800",
        [],
        [1, [2, (3,)]],
        (1, 2),
        {1, 2},
        frozenset({3}),
        {"a": 1, 2: (3,), (4, 5): [6]},
        {},
        b"\x00\xff",
        bytearray(b"x"),
        1 + 2j,
        range(1, 9, 2),
        deque([1, 2]),
        Fraction(-1, 3),
        Decimal("1.10"),
        Decimal("-Infinity"),
        date(2020, 2, 29),
        datetime(2020, 2, 29, 23, 59, 59, 1),
        time(1, 2),
        timedelta(-1, 3, 5),
        {date(2020, 1, 1): [Fraction(1, 2)]},
    ],
)
def test_what_is_sent_arrives(value: Any) -> None:
    arrived = codec.loads(codec.dumps(value))
    assert type(arrived) is type(value)
    assert arrived == value
    assert repr(arrived) == repr(value)


def test_nan_arrives() -> None:
    assert math.isnan(codec.loads(codec.dumps(float("nan"))))


def test_subclasses_arrive_as_their_content() -> None:
    assert codec.loads(codec.dumps(Point(1, 2))) == (1, 2)
    assert codec.loads(codec.dumps(Counter("aab"))) == {"a": 2, "b": 1}
    assert codec.loads(codec.dumps(OrderedDict(a=1))) == {"a": 1}
    assert codec.loads(codec.dumps(x * x for x in range(3))).__next__() == 0


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "3"

    __hash__ = int.__hash__


class LyingList(list[int]):
    def __iter__(self) -> Any:
        return iter([3])

    def __len__(self) -> int:
        return 1


class Anything:
    def __eq__(self, other: object) -> bool:
        return True


class LyingFraction(Fraction):
    numerator = 3

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = Fraction.__hash__


class LyingDate(date):
    year = 3

    def isoformat(self) -> str:
        return "2000-01-01"


class Zone(tzinfo):
    def utcoffset(self, _: object) -> timedelta:
        raise SystemExit

    def dst(self, _: object) -> timedelta:
        raise SystemExit

    def tzname(self, _: object) -> str:
        raise SystemExit


def test_subclasses_of_the_standard_librarys_types_arrive_as_what_they_are() -> None:
    assert repr(codec.loads(codec.dumps(LyingFraction(7, 2)))) == "Fraction(7, 2)"
    assert codec.loads(codec.dumps(LyingDate(2020, 5, 4))) == date(2020, 5, 4)


def test_a_time_zone_is_not_asked_and_such_a_time_equals_nothing() -> None:
    for value in (datetime(2020, 1, 1, tzinfo=Zone()), time(1, tzinfo=Zone())):
        arrived = codec.loads(codec.dumps(value))
        assert isinstance(arrived, codec.Opaque) and arrived != value


def test_a_fraction_of_no_integers_does_not_travel() -> None:
    forged = Fraction(1, 2)
    forged._numerator = "7"  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        codec.dumps(forged)
    assert isinstance(codec.loads(codec.dumps(Decimal("sNaN"))), codec.Opaque)


def test_liars_are_found_out() -> None:
    assert json.loads(codec.result_json(Liar(7))) == 7
    assert json.loads(codec.result_json(LyingList([1, 2]))) == [1, 2]
    assert codec.loads(codec.dumps([Liar(7)])) == [7]
    opaque = codec.loads(codec.dumps(Anything()))
    assert opaque != 3
    assert 3 != opaque  # noqa: SIM300, both orders matter here
    assert opaque


def test_results_are_json_with_lists_and_text_keys() -> None:
    assert codec.result_json((1, {2: (3,)})) == '[1, {"2": [3]}]'


@pytest.mark.parametrize("value", [{1, 2}, b"x", 1j, object(), {(1, 2): 3}, Fraction(1, 2)])
def test_what_json_lacks_is_marked(value: Any) -> None:
    assert "__unsupported__" in codec.result_json(value)


def test_depth_is_bounded() -> None:
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    assert codec.result_json(deep).count("[") <= codec.MAX_DEPTH
    assert codec.dumps(deep).count("[") <= codec.MAX_DEPTH + 1
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    assert "__unsupported__" in codec.result_json(cyclic)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", '{"range": [1], "x": 1}', '{"system": ["id"]}', "[" * 100_000),
        *('{"Fraction": [1, 0]}', '{"Decimal": ["x"]}', '{"date": ["x"]}', '{"date": [1]}'),
        *('{"timedelta": [999999999999]}', '{"Fraction": ["1", "x"]}', '{"datetime": []}'),
    ],
)
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, RecursionError)):
        codec.loads(text)

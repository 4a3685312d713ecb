"""Values travel as what they are made of, and hostile objects arrive as plain content."""

import json
import math
from collections import Counter, OrderedDict, deque, namedtuple
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


@pytest.mark.parametrize("value", [{1, 2}, b"x", 1j, object(), {(1, 2): 3}])
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
    "text", ["", "{", '{"range": [1], "x": 1}', '{"system": ["id"]}', "[" * 100_000]
)
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, RecursionError)):
        codec.loads(text)

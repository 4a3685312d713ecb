"""Micro-APPS over a list of integers: keep some, change each, aggregate."""

from __future__ import annotations

import random
from typing import Any

from recipe.cpu.micro_tasks import CONSTANTS, INDENT, Area, Clause, Form, Operation

_VALUES = range(-20, 100)
_DIVISORS = range(2, 10)

_KEEP = (
    Operation("all", "", ("", ""), lambda x, c: True),
    Operation(
        "even", "{x}%2==0", ("Keep even ones.", "Use only even ones."), lambda x, c: x % 2 == 0
    ),
    Operation("odd", "{x}%2==1", ("Keep odd ones.", "Use only odd ones."), lambda x, c: x % 2 == 1),
    Operation(
        "above",
        "{x}>{c}",
        ("Keep those above {c}.", "Drop all up to {c}."),
        lambda x, c: x > c,
        CONSTANTS,
    ),
    Operation(
        "below",
        "{x}<{c}",
        ("Keep those below {c}.", "Drop all from {c} up."),
        lambda x, c: x < c,
        CONSTANTS,
    ),
    Operation(
        "multiple",
        "{x}%{c}==0",
        ("Keep multiples of {c}.", "Use only those divisible by {c}."),
        lambda x, c: x % c == 0,
        _DIVISORS,
    ),
    Operation(
        "positive", "{x}>0", ("Keep positive ones.", "Use only positive ones."), lambda x, c: x > 0
    ),
)

_MAP = (
    Operation("same", "{x}", ("", ""), lambda x, c: x),
    Operation(
        "times",
        "{x}*{c}",
        ("Multiply each by {c}.", "Scale by {c}."),
        lambda x, c: x * c,
        CONSTANTS,
    ),
    Operation(
        "plus", "{x}+{c}", ("Add {c} to each.", "Raise by {c}."), lambda x, c: x + c, CONSTANTS
    ),
    Operation(
        "minus",
        "{x}-{c}",
        ("Subtract {c} from each.", "Lower by {c}."),
        lambda x, c: x - c,
        CONSTANTS,
    ),
    Operation("square", "{x}*{x}", ("Square each.", "Take squares."), lambda x, c: x * x),
    Operation(
        "absolute", "abs({x})", ("Drop the signs.", "Take absolute values."), lambda x, c: abs(x)
    ),
    Operation(
        "modulo",
        "{x}%{c}",
        ("Take each modulo {c}.", "Take remainders by {c}."),
        lambda x, c: x % c,
        CONSTANTS,
    ),
)

_AGGREGATE = (
    Operation("sum", "sum({b})", ("the sum.", "the total."), lambda b, c: sum(b)),
    Operation("count", "len({b})", ("how many.", "the count."), lambda b, c: len(b)),
    Operation("max", "max({b})", ("the largest.", "the maximum."), lambda b, c: max(b)),
    Operation("min", "min({b})", ("the smallest.", "the minimum."), lambda b, c: min(b)),
    Operation("first", "{b}[0]", ("the first.", "the leftmost."), lambda b, c: b[0]),
    Operation("last", "{b}[-1]", ("the last.", "the rightmost."), lambda b, c: b[-1]),
    Operation(
        "spread",
        "max({b})-min({b})",
        ("the spread.", "largest minus smallest."),
        lambda b, c: max(b) - min(b),
    ),
    Operation(
        "distinct",
        "len(set({b}))",
        ("how many distinct.", "the count without repeats."),
        lambda b, c: len(set(b)),
    ),
    Operation(
        "mean",
        "sum({b})//len({b})",
        ("the mean rounded down.", "the floored average."),
        lambda b, c: sum(b) // len(b),
    ),
)


def _list_body(
    clauses: tuple[Clause, ...], names: dict[str, str], loop: bool
) -> tuple[list[str], str]:
    keep, change, aggregate = clauses
    test, value = keep.code(**names), change.code(**names)
    if not test and value == names["x"]:
        return [], aggregate.code(b=names["a"])
    if loop:
        lines = _list_loop(test, value, names)
    else:
        condition = f" if {test}" if test else ""
        lines = ["{b}=[{v} for {x} in {a}{k}]".format(v=value, k=condition, **names)]
    return lines, aggregate.code(**names)


def _list_loop(test: str, value: str, names: dict[str, str]) -> list[str]:
    lines = ["{b}=[]".format(**names), "for {x} in {a}:".format(**names)]
    if test:
        lines.append(f"{INDENT}if {test}:")
    depth = 2 if test else 1
    return [*lines, INDENT * depth + "{b}.append({v})".format(v=value, **names)]


def _draw_list(clauses: tuple[Clause, ...], rng: random.Random) -> tuple[list[int]]:
    """Four to eight integers, at least two of which are kept."""
    wanted = [value for value in _VALUES if clauses[0].apply(value)]
    values = rng.choices(wanted, k=2) + rng.choices(_VALUES, k=rng.randint(2, 6))
    rng.shuffle(values)
    return (values,)


def _evaluate_list(clauses: tuple[Clause, ...], arguments: tuple[Any, ...]) -> int:
    keep, change, aggregate = clauses
    return aggregate.apply([change.apply(x) for x in arguments[0] if keep.apply(x)])


def _list_text(form: Form, arguments: tuple[Any, ...]) -> str:
    line = " ".join(map(str, arguments[0])) + "\n"
    return f"{len(arguments[0])}\n{line}" if form is Form.COUNT_LINE else line


LISTS = Area(
    name="list",
    slots=(_KEEP, _MAP, _AGGREGATE),
    intros={
        Form.COUNT_LINE: ("Read n, then n integers.", "First n, next n integers."),
        Form.ONE_LINE: ("Read integers.", "A line of integers."),
        Form.FUNCTION: ("Given a list of integers.", "Take a list of integers."),
    },
    names=(
        {"n": "n", "a": "a", "b": "b", "x": "x"},
        {"n": "k", "a": "v", "b": "w", "x": "e"},
        {"n": "n", "a": "nums", "b": "out", "x": "t"},
    ),
    parameters="{a}",
    reading={
        Form.COUNT_LINE: ("{n}=int(input())", "{a}=list(map(int,input().split()))"),
        Form.ONE_LINE: ("{a}=list(map(int,input().split()))",),
    },
    body=_list_body,
    draw_arguments=_draw_list,
    evaluate=_evaluate_list,
    as_text=_list_text,
)

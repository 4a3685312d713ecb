"""Micro-APPS over two integers: combine them, then finish the result."""

from __future__ import annotations

import random
from typing import Any

from recipe.cpu.micro_tasks import CONSTANTS, Area, Clause, Form, Operation, fold

_COMBINE = (
    Operation("add", "{p}+{q}", ("Add them.", "Take their sum."), lambda v, c: v[0] + v[1]),
    Operation(
        "subtract",
        "{p}-{q}",
        ("Take first minus second.", "Subtract the second."),
        lambda v, c: v[0] - v[1],
    ),
    Operation(
        "multiply", "{p}*{q}", ("Multiply them.", "Take their product."), lambda v, c: v[0] * v[1]
    ),
    Operation(
        "larger", "max({p},{q})", ("Take the larger.", "Pick the bigger."), lambda v, c: max(v)
    ),
    Operation(
        "smaller", "min({p},{q})", ("Take the smaller.", "Pick the lesser."), lambda v, c: min(v)
    ),
    Operation(
        "distance",
        "abs({p}-{q})",
        ("Take their distance.", "Take the absolute difference."),
        lambda v, c: abs(v[0] - v[1]),
    ),
    Operation(
        "quotient",
        "{p}//{q}",
        ("Take the whole quotient.", "Divide, rounding down."),
        lambda v, c: v[0] // v[1],
    ),
    Operation(
        "remainder",
        "{p}%{q}",
        ("Take the remainder.", "Take first modulo second."),
        lambda v, c: v[0] % v[1],
    ),
    Operation(
        "power",
        "{p}**2+{q}**2",
        ("Add their squares.", "Take the sum of squares."),
        lambda v, c: v[0] ** 2 + v[1] ** 2,
    ),
    Operation(
        "join",
        "int(str({p})+str({q}))",
        ("Join their digits.", "Write them side by side."),
        lambda v, c: int(f"{v[0]}{v[1]}"),
    ),
)

_FINISH = (
    Operation("done", "{r}", ("the result.", "it."), lambda v, c: v),
    Operation(
        "increase",
        "({r})+{c}",
        ("that plus {c}.", "it increased by {c}."),
        lambda v, c: v + c,
        CONSTANTS,
    ),
    Operation(
        "decrease",
        "({r})-{c}",
        ("that minus {c}.", "it decreased by {c}."),
        lambda v, c: v - c,
        CONSTANTS,
    ),
    Operation(
        "scale",
        "({r})*{c}",
        ("{c} times that.", "it multiplied by {c}."),
        lambda v, c: v * c,
        CONSTANTS,
    ),
    Operation(
        "reduce",
        "({r})%{c}",
        ("that modulo {c}.", "its remainder by {c}."),
        lambda v, c: v % c,
        CONSTANTS,
    ),
    Operation(
        "exceeds",
        "'YES' if {r}>{c} else 'NO'",
        ("YES if above {c}, else NO.", "YES when over {c}, otherwise NO."),
        lambda v, c: "YES" if v > c else "NO",
        CONSTANTS,
    ),
)


def _pair_body(
    clauses: tuple[Clause, ...], names: dict[str, str], loop: bool
) -> tuple[list[str], str]:
    """`loop` writes the two steps on two lines; pairs have no loops here."""
    combine, finish = clauses
    value = combine.code(**names)
    if not loop:
        return [], finish.code(r=value)
    return [f"{names['r']}={value}"], finish.code(r=names["r"]).replace(
        f"({names['r']})", names["r"]
    )


def _draw_pair(clauses: tuple[Clause, ...], rng: random.Random) -> tuple[int, int]:
    return rng.randint(1, 99), rng.randint(1, 99)


def _pair_text(form: Form, arguments: tuple[Any, ...]) -> str:
    separator = "\n" if form is Form.COUNT_LINE else " "
    return separator.join(map(str, arguments)) + "\n"


PAIRS = Area(
    name="pair",
    slots=(_COMBINE, _FINISH),
    intros={
        Form.COUNT_LINE: ("Read two integers, a line each.", "Two integers on two lines."),
        Form.ONE_LINE: ("Read two integers on a line.", "A line of two integers."),
        Form.FUNCTION: ("Given two integers.", "Take two integers."),
    },
    names=(
        {"p": "a", "q": "b", "r": "c"},
        {"p": "x", "q": "y", "r": "z"},
        {"p": "n", "q": "m", "r": "r"},
    ),
    parameters="{p},{q}",
    reading={
        Form.COUNT_LINE: ("{p}=int(input())", "{q}=int(input())"),
        Form.ONE_LINE: ("{p},{q}=map(int,input().split())",),
    },
    body=_pair_body,
    draw_arguments=_draw_pair,
    evaluate=fold,
    as_text=_pair_text,
)

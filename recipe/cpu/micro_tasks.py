"""The grammar of micro-APPS tasks: operations, clauses, areas, and what a task is.

A task is one sentence per clause ("Keep those above 12. Multiply each by 3. Print the sum.") over a
list, a string or two integers. Every operation carries its wording, its Python code and its meaning
as a function, so that expected outputs never come from the program under judgement.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

Constant = int | str | None
INDENT = "    "
CONSTANTS = range(2, 61)


class Split(Enum):
    """Which side of the train and test border a task's parameters fall on."""

    TRAIN = "train"
    TEST = "test"


class Form(Enum):
    """How the program gets its input."""

    COUNT_LINE = "count_line"  # standard input: how many, then all on a line
    ONE_LINE = "one_line"  # standard input: all on a line
    FUNCTION = "function"  # call-based: arguments of `solve`


@dataclass(frozen=True)
class Operation:
    """One kind of step. {c} is the constant; other names in `code` are the area's."""

    kind: str
    code: str
    phrases: tuple[str, str]
    meaning: Callable[[Any, Any], Any]
    constants: Sequence[Constant] = (None,)


@dataclass(frozen=True)
class Clause:
    """An operation with its constant."""

    operation: Operation
    constant: Constant = None

    @property
    def key(self) -> str:
        suffix = "" if self.constant is None else f"-{self.constant}"
        return f"{self.operation.kind}{suffix}"

    def code(self, **names: str) -> str:
        return self.operation.code.format(c=self.constant, **names)

    def apply(self, value: Any) -> Any:
        return self.operation.meaning(value, self.constant)


@dataclass(frozen=True)
class Style:
    """How a programmer writes: variable names (index into the area's table), loop or expression."""

    names: int
    loop: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Style:
        return cls(names=rng.choice((0, 0, 1, 2)), loop=rng.random() < 0.25)


@dataclass(frozen=True)
class Area:
    """A kind of input with its clause slots, one operation table each, and its code layout."""

    name: str
    slots: tuple[tuple[Operation, ...], ...]
    intros: Mapping[Form, tuple[str, str]]
    names: tuple[dict[str, str], ...]
    parameters: str
    reading: Mapping[Form, tuple[str, ...]]
    body: Callable[[tuple[Clause, ...], dict[str, str], bool], tuple[list[str], str]]
    draw_arguments: Callable[[tuple[Clause, ...], random.Random], tuple[Any, ...]]
    evaluate: Callable[[tuple[Clause, ...], tuple[Any, ...]], Any]
    as_text: Callable[[Form, tuple[Any, ...]], str]

    def draw_clauses(self, rng: random.Random) -> tuple[Clause, ...]:
        return tuple(draw_clause(slot, rng) for slot in self.slots)


@dataclass(frozen=True)
class Task:
    """What has to be computed (`clauses`) and how the input comes (`form`)."""

    area: Area
    clauses: tuple[Clause, ...]
    form: Form

    @property
    def family(self) -> str:
        """The kinds without their constants, such as `list/above/times/sum`."""
        return "/".join((self.area.name, *(clause.operation.kind for clause in self.clauses)))

    @property
    def key(self) -> str:
        """The parameters without form and wording, such as `list/above-12/times-3/sum`."""
        return "/".join((self.area.name, *(clause.key for clause in self.clauses)))

    @property
    def split(self) -> Split:
        """Test for a tenth of all keys, by hash: a key is never on both sides."""
        digest = hashlib.sha256(self.key.encode()).digest()
        return Split.TEST if digest[0] < 26 else Split.TRAIN

    def statement(self, rng: random.Random) -> str:
        """The problem in words; each clause has two phrasings, drawn at random."""
        sentences = [rng.choice(self.area.intros[self.form])]
        sentences += [_phrase(clause, rng) for clause in self.clauses[:-1]]
        verb = "Return" if self.form is Form.FUNCTION else "Print"
        sentences.append(f"{verb} {_phrase(self.clauses[-1], rng)}")
        return " ".join(sentence for sentence in sentences if sentence)

    def program(self, style: Style) -> str:
        """A right program, without a trailing newline."""
        call_based = self.form is Form.FUNCTION
        names = self.area.names[0 if call_based else style.names]
        body, result = self.area.body(self.clauses, names, style.loop)
        if call_based:
            lines = [*body, f"return {result}"]
            return "\n".join([self.starter_code(), *(INDENT + line for line in lines)])
        reading = [line.format(**names) for line in self.area.reading[self.form]]
        return "\n".join([*reading, *body, f"print({result})"])

    def starter_code(self) -> str:
        """The signature of `solve` for a call-based task, else nothing."""
        if self.form is not Form.FUNCTION:
            return ""
        return f"def solve({self.area.parameters.format(**self.area.names[0])}):"

    def with_clause(self, index: int, clause: Clause) -> Task:
        """The same task with one clause changed."""
        clauses = (*self.clauses[:index], clause, *self.clauses[index + 1 :])
        return replace(self, clauses=clauses)


def draw_clause(slot: tuple[Operation, ...], rng: random.Random) -> Clause:
    """A random operation of the slot with a random constant."""
    operation = rng.choice(slot)
    return Clause(operation, rng.choice(operation.constants))


def _phrase(clause: Clause, rng: random.Random) -> str:
    return rng.choice(clause.operation.phrases).format(c=clause.constant)


def fold(clauses: tuple[Clause, ...], arguments: tuple[Any, ...]) -> Any:
    """The clauses one after the other, the first on the argument (or on the tuple of several)."""
    value: Any = arguments[0] if len(arguments) == 1 else arguments
    for clause in clauses:
        value = clause.apply(value)
    return value

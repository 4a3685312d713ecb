"""Wrong programs for the warm start: what a sloppy writer writes, and what a refiner must correct.

Six in ten are slips of meaning (another operation, constant or input form, otherwise well written),
the rest are slips of the pen (a bracket, a colon, a line, a character is gone; a name is confused).
About one in twenty still passes all tests, as it does with people.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from recipe.cpu.micro_tasks import Clause, Style, Task, draw_clause

FENCE = "```"
SEMANTIC_SHARE = 0.6

_OPERATOR = re.compile(r"==|//|\*\*|[-+*<>%]")
_NAME = re.compile(r"\b[a-z]\b")


def fenced(program: str) -> str:
    """The response that holds this program: one ```python block, nothing else."""
    return f"{FENCE}python\n{program}\n{FENCE}"


def corrupt(task: Task, style: Style, rng: random.Random) -> str:
    """A response to `task` with one slip in it; never equal to the right one in this style."""
    right = fenced(task.program(style))
    while True:
        if rng.random() < SEMANTIC_SHARE:
            wrong = fenced(misread(task, rng).program(style))
        else:
            wrong = rng.choice(_TYPOS)(right, rng)
        if wrong != right:
            return wrong


def misread(task: Task, rng: random.Random) -> Task:
    """The task with one clause or the form of its input misunderstood."""
    if rng.random() < 0.15:
        return replace(task, form=rng.choice(list(task.area.intros)))
    index = rng.randrange(len(task.clauses))
    clause = task.clauses[index]
    if clause.constant is not None and rng.random() < 0.5:
        other = Clause(clause.operation, rng.choice(clause.operation.constants))
    else:
        other = draw_clause(task.area.slots[index], rng)
    return task.with_clause(index, other)


def _without(text: str, start: int, end: int) -> str:
    return text[:start] + text[end:]


def _drop_match(pattern: str) -> Callable[[str, random.Random], str]:
    """A slip that loses one random occurrence of the pattern."""

    def slip(text: str, rng: random.Random) -> str:
        matches = list(re.finditer(pattern, text))
        return _without(text, *rng.choice(matches).span()) if matches else text

    return slip


def _drop_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    del lines[rng.randrange(1, len(lines) - 1)]
    return "\n".join(lines)


def _drop_character(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(f"{FENCE}python\n"), len(text) - len(FENCE) - 1)
    return _without(text, place, place + 1)


def _wrong_operator(text: str, rng: random.Random) -> str:
    return _swap(_OPERATOR, ("+", "-", "*", "<", ">", "%", "//", "=="), text, rng)


def _wrong_name(text: str, rng: random.Random) -> str:
    return _swap(_NAME, tuple(dict.fromkeys(_NAME.findall(text))), text, rng)


def _swap(pattern: re.Pattern[str], options: tuple[str, ...], text: str, rng: random.Random) -> str:
    """One random occurrence of the pattern replaced by a random option."""
    matches = list(pattern.finditer(text))
    if not matches:
        return text
    start, end = rng.choice(matches).span()
    return text[:start] + rng.choice(options) + text[end:]


_TYPOS: tuple[Callable[[str, random.Random], str], ...] = (
    _drop_match(r"int\(|int,"),
    _drop_match(r"[()\[\]]"),
    _drop_match(r":\n"),
    _drop_match(rf"\n{FENCE}$"),
    _drop_line,
    _drop_character,
    _wrong_operator,
    _wrong_name,
)

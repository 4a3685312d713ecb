"""Micro-APPS over a word: rewrite it, then measure or show it."""

from __future__ import annotations

import random
import string

from recipe.cpu.micro_tasks import Area, Clause, Form, Operation, fold

_LETTERS = "abcdeilmnorst"
_VOWELS = "aeiou"

_REWRITE = (
    Operation("as_is", "{s}", ("", ""), lambda s, c: s),
    Operation("reversed", "{s}[::-1]", ("Reverse it.", "Turn it around."), lambda s, c: s[::-1]),
    Operation(
        "without",
        "{s}.replace('{c}','')",
        ("Remove every {c}.", "Delete all {c}."),
        lambda s, c: s.replace(c, ""),
        _LETTERS,
    ),
    Operation(
        "head",
        "{s}[:{c}]",
        ("Keep the first {c} letters.", "Cut to {c} letters."),
        lambda s, c: s[:c],
        range(3, 8),
    ),
    Operation(
        "tail",
        "{s}[-{c}:]",
        ("Keep the last {c} letters.", "Take its last {c} letters."),
        lambda s, c: s[-c:],
        range(3, 8),
    ),
    Operation(
        "twice",
        "({s}*{c})",
        ("Repeat it {c} times.", "Write it {c} times."),
        lambda s, c: s * c,
        range(2, 8),
    ),
)

_MEASURE = (
    Operation("text", "{s}", ("it.", "the result."), lambda s, c: s),
    Operation(
        "upper", "{s}.upper()", ("it in capitals.", "it in upper case."), lambda s, c: s.upper()
    ),
    Operation("length", "len({s})", ("its length.", "how long it is."), lambda s, c: len(s)),
    Operation(
        "letter",
        "{s}.count('{c}')",
        ("how often {c} occurs.", "the number of {c}."),
        lambda s, c: s.count(c),
        _LETTERS,
    ),
    Operation(
        "vowels",
        "sum(c in 'aeiou' for c in {s})",
        ("how many vowels.", "the number of vowels."),
        lambda s, c: sum(letter in _VOWELS for letter in s),
    ),
    Operation(
        "sorted",
        "''.join(sorted({s}))",
        ("it sorted.", "its letters in order."),
        lambda s, c: "".join(sorted(s)),
    ),
    Operation(
        "letters",
        "len(set({s}))",
        ("how many different letters.", "its count of distinct letters."),
        lambda s, c: len(set(s)),
    ),
    Operation("front", "{s}[0]", ("its first letter.", "the letter in front."), lambda s, c: s[0]),
    Operation(
        "every",
        "{s}[::{c}]",
        ("every letter at steps of {c}.", "it in steps of {c}."),
        lambda s, c: s[::c],
        range(2, 6),
    ),
)


def _string_body(
    clauses: tuple[Clause, ...], names: dict[str, str], loop: bool
) -> tuple[list[str], str]:
    """`loop` writes the two steps on two lines; strings have no loops here."""
    rewrite, measure = clauses
    value = rewrite.code(**names)
    if value == names["s"] or not loop:
        return [], measure.code(s=value)
    return [f"{names['s']}={value}"], measure.code(**names)


def _draw_word(clauses: tuple[Clause, ...], rng: random.Random) -> tuple[str]:
    """A word of 7 to 14 letters: those that the clauses name twice each, two that they do not,
    more.
    """
    named = [clause.constant for clause in clauses if isinstance(clause.constant, str)]
    other = rng.sample([letter for letter in string.ascii_lowercase if letter not in named], 2)
    letters = named * 2 + other + rng.choices(_LETTERS, k=rng.randint(5, 8))
    rng.shuffle(letters)
    return ("".join(letters),)


STRINGS = Area(
    name="string",
    slots=(_REWRITE, _MEASURE),
    intros={
        Form.ONE_LINE: ("Read a word.", "A word on a line."),
        Form.FUNCTION: ("Given a word.", "Take a word."),
    },
    names=({"s": "s"}, {"s": "w"}, {"s": "word"}),
    parameters="{s}",
    reading={Form.ONE_LINE: ("{s}=input()",)},
    body=_string_body,
    draw_arguments=_draw_word,
    evaluate=fold,
    as_text=lambda form, arguments: f"{arguments[0]}\n",
)

"""The program in a text: what is found, what is kept, what is refused."""

import ast
import random

import pytest

from recipe.evaluation.sanitise import longest_program, sanitise, well_formed

ADD = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ADD, ADD),
        (f"Here it is:\n{ADD}Isn't that nice?", ADD),
        (f"```python\n{ADD}```\nIt adds.", ADD),
        # imports stay, what nothing needs goes
        (f"import math\n{ADD}def spare():\n    return 0\nx = add(1, 2)\n", f"import math\n{ADD}"),
        # helpers and constants stay where the entry point needs them, also through others
        (
            "K = 2\ndef h(x):\n    return K * x\ndef add(a, b):\n    return h(a) + b\nprint(1)",
            "K = 2\ndef h(x):\n    return K * x\ndef add(a, b):\n    return h(a) + b\n",
        ),
        # the first definition of a name counts
        (f"{ADD}def add(a, b):\n    return 0\n", ADD),
        # the prompt's head repeated without a body that returns is no definition
        (f'def add(a, b):\n    """Add."""\n{ADD}', ADD),
        (
            f"import functools\n@functools.cache\n{ADD}",
            f"import functools\n@functools.cache\n{ADD}",
        ),
        # an assignment defines its first target: of these A, which is not needed, and not B
        (f"A = B = 3\n{ADD}".replace("b\n", "B\n"), ADD.replace("b\n", "B\n")),
        (f"B = A = 3\n{ADD}".replace("b\n", "B\n"), f"B = A = 3\n{ADD}".replace("b\n", "B\n")),
        # nothing that is needed: as it is
        ("x + 1", "x + 1\n"),
        # a NUL byte spoils its own line only
        (f"\0\n{ADD}\0 and more\nx = 1\n", ADD),
        # cut off in the middle of a second function
        (f"{ADD}def other(a:\n", ADD),
        ("I cannot, sorry: why?", None),
        ("", None),
        ("\n\n", None),
    ],
)
def test_what_the_entry_point_needs_is_kept(text: str, expected: str | None) -> None:
    assert sanitise(text, "add") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\n!\nb = 2\nc = 3", "b = 2\nc = 3"),  # more lines win
        ("a = 1\n!\nb = 2", "a = 1"),  # the first of equals
        ("a = 1\n\n\n!\nb = 2\nc = 3", "b = 2\nc = 3"),  # blank lines do not count
        ("x = (1,\ny = 2\nz = 3", "y = 2\nz = 3"),  # never closed: the lines behind it
        ('s = """\nwhy?\nb = 1', "b = 1"),
        ("def f():\nx = 1", "x = 1"),
    ],
)
def test_the_longest_parsable_run_of_lines_is_found(text: str, expected: str) -> None:
    assert longest_program(text) == expected


def test_the_quick_search_finds_as_many_lines_as_trying_every_run() -> None:
    code = "def f(x):|    return x|a = 1|(|)|if a:|    b = 2|else:|x = [|]|for i in a:|        c"
    pieces = [*code.split("|"), '"""', "@dec", "class A:", "why not?", ""]
    rng = random.Random(0)
    for _ in range(300):
        lines = rng.choices(pieces, k=rng.randint(1, 9))
        runs = [lines[i:j] for i in range(len(lines)) for j in range(i + 1, len(lines) + 1)]
        most = max(sum(map(bool, run)) for run in [[], *filter(_parses, runs)])
        found = longest_program("\n".join(lines))
        assert sum(map(bool, found.split("\n"))) == most, lines


def _parses(lines: list[str]) -> bool:
    try:
        ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize(
    ("program", "entry", "expected"),
    [
        (ADD, "add", True),
        (ADD, "other", False),
        ('def add(a, b):\n    """Add."""\n', "add", False),
        ("add = lambda a, b: a + b", "add", True),
        ("plus = add = lambda a, b: a + b", "add", True),
        ("add, spare = max, min", "add", True),
        ("from operator import add", "add", True),
        ("def add(a, b):\n    pass\n", "add", True),
        ("async def add(a, b):\n    return a\n", "add", True),
        ("print(1)", "", True),
        ("", "", False),
        (None, "", False),
        ("print(", "", False),
        ("a\0b", "", False),
        ("(" * 5000, "", False),
    ],
)
def test_a_program_is_formed_if_it_parses_and_defines_its_entry_point(
    program: str | None, entry: str, expected: bool
) -> None:
    assert well_formed(program, entry) is expected


@pytest.mark.parametrize("text", ["(" * 50_000, "x" * 200_000, "if x:\n" * 1000, "\n!" * 1000])
def test_hostile_text_neither_raises_nor_takes_long(text: str) -> None:
    assert sanitise(text, "f") is None

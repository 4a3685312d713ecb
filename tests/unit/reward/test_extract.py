"""From a response to the one program it shows."""

import random

import pytest

from reward.extract import Extract, Shown, extract, python_blocks, shown

CODE = "print(1)\n"


@pytest.mark.parametrize(
    "response",
    [
        "```python\nprint(1)\n```",
        "Sure:\n```Python\nprint(1)\n```\nDone.",
        "```py\r\nprint(1)\r\n```\r\n",
        "```python3\nprint(1)\n```",
        "```python3.11\nprint(1)\n```",
        "```PY3\nprint(1)\n```",
        "``` python\nprint(1)\n```",
        "```{.python}\nprint(1)\n```",
        "````python\nprint(1)\n````",
        "```python\nprint(1)\n`````",
        "~~~python\nprint(1)\n~~~",
        "~~~~ python title=`a`\nprint(1)\n~~~~~",
        '```python title="a.py"\nprint(1)\n```',
        "```\nnot this\n```\n```python\nprint(1)\n```\n```text\n1\n```",
        "  ```python\n  print(1)\n  ```  ",
        "1. First:\n\n    ```python\n    print(1)\n    ```\n",
        "- a\n\n\t```python\n\tprint(1)\n\t```\n",
        "    ```python\n    print(1)\n```",
        "```python\nprint(1)```",
        "```python\nprint(1) ```  \nThat is all.",
        "~~~python\nprint(1)~~~\n",
        "Mind the <!-- mark.\n```python\nprint(1)\n```",
        "<!-- a note --> Here:\n```python\nprint(1)\n```",
        "<!--\n```python\nprint(2)\n```\n-->\n```python\nprint(1)\n```",
        "```\nprint(1)\n```",
        "~~~\nprint(1)\n~~~",
        "1. So:\n    ```\n    print(1)\n    ```",
        "```\nprint(1)\n```\n```text\n1\n```",
    ],
)
@pytest.mark.parametrize("how", [how for how in Extract if how != Extract.BARE])
def test_one_block_is_the_program(response: str, how: Extract) -> None:
    assert extract(response, how) == CODE


@pytest.mark.parametrize(
    ("response", "why"),
    [
        ("", "nothing"),
        ("print(1)", "no fence"),
        ("```cpp\nprint(1)\n```", "another language"),
        ("```text\n1\n```", "an output"),
        ("```pythonic\nprint(1)\n```", "another language"),
        ("```python-repl\n>>> print(1)\n```", "a session is no program"),
        ("```python\nprint(1)\n", "cut off"),
        ("```python\nprint(1)\n``", "fence too short"),
        ("````python\nprint(1)\n```", "closing fence shorter than the opening one"),
        ("```python\nprint(1)\n~~~", "closing fence of the other kind"),
        ("text ```python\nprint(1)\n```", "fence inside a line"),
        ("<!-- ```python\nprint(1)\n``` -->", "a comment is not shown"),
        ("<!--\n```python\nprint(1)\n```\n-->", "a comment is not shown"),
        ("- <!--\n```python\nprint(1)\n```\n-->", "nor in a list"),
        ("1. x\n\n    <!--\n```python\nprint(1)\n```\n-->", "nor deeper in one"),
        ("> <!--\n```python\nprint(1)\n```\n-->", "nor in a quote"),
        ("x\r<!--\n```python\nprint(1)\n```\n-->", "a carriage return ends a line"),
        ("<!A\n```python\nprint(1)\n```\n>", "a declaration is not shown"),
        ("<title>\n```python\nprint(1)\n```\n</title>", "nor is a title"),
        ("<dialog>\n```python\nprint(1)\n```\n</dialog>", "nor a closed dialog"),
        ("<template>\n```python\nprint(1)\n```\n</template>", "nor a template"),
        ("<!-- b\n```python\nprint(1)\n```\n", "a comment that never closes hides the rest"),
        ("<style>\n```python\nprint(1)\n```\n</style>", "a style sheet is not shown"),
        ("  <SCRIPT x>\n```python\nprint(1)\n```\n", "a script is not shown"),
        ("<?x\n```python\nprint(1)\n```\n?>", "an instruction is not shown"),
        ("````markdown\n```python\nprint(1)\n```\n````", "an example in another block"),
        ("~~~text\n```python\nprint(1)\n```\n~~~", "an example in another block"),
    ],
)
@pytest.mark.parametrize("how", [how for how in Extract if how != Extract.BARE])
def test_what_shows_no_program_has_none(response: str, why: str, how: Extract) -> None:
    assert extract(response, how) is None, why


@pytest.mark.parametrize(
    "info",
    [
        "python:main.py",
        "python{1,2}",
        "python {1,2}",
        "python,ignore",
        'python title="x"',
        "python=",
        "python=101",
        "python;",
        "python|x",
        "python(3)",
        "python/a.py",
        "Python3.11:a",
        "py:a.py",
        "{.python}",
        "{.python .numberLines}",
        "{ .python }",
        "{python}",
        "{python, echo=TRUE}",
    ],
)
@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_the_first_word_of_an_info_string_is_the_language(fence: str, info: str) -> None:
    """As renderers take it, whatever stands behind it."""
    other = "```text\n1\n```\n```\n2\n```\n"
    assert extract(f"{other}{fence}{info}\nprint(1)\n{fence}\n") == CODE


@pytest.mark.parametrize(
    "info",
    [
        "pythonic",
        "python-repl",
        "python_repl",
        "python+html",
        "python3.x",
        "ipython",
        "pycon",
        "cpp:python",
        "c++",
        "{r} python",
        "{code-block} python",
        "{}",
        "!python",
        'title="python"',
    ],
)
@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_other_info_strings_declare_other_languages(fence: str, info: str) -> None:
    assert shown(f"{fence}{info}\nprint(1)\n{fence}\n") == Shown.NONE


SEVERAL = (
    "```python\nfirst = 1\n```\n```python\ndef solve():\n    return 'the longest block'\n```\n"
    "Or:\n~~~py\ndef f(): 2\n~~~\nUse:\n```python\nprint(f())\n```"
)


@pytest.mark.parametrize(
    ("how", "program"),
    [
        (Extract.ONLY, None),
        (Extract.FIRST, "first = 1\n"),
        (Extract.LAST, "print(f())\n"),
        (Extract.LONGEST, "def solve():\n    return 'the longest block'\n"),
        (Extract.CLASS_OR_DEF, "def f(): 2\n"),
        (Extract.BARE, SEVERAL),
    ],
)
def test_of_several_blocks_the_chosen_one_is_taken(how: Extract, program: str | None) -> None:
    assert extract(SEVERAL, how) == program


def test_without_a_definition_the_last_block_is_taken() -> None:
    response = "```python\nx = 1\n```\n```python\nprint(1)\n```"
    assert extract(response, Extract.CLASS_OR_DEF) == CODE


def test_of_equally_long_blocks_the_last_is_taken() -> None:
    response = "```python\nprint(2)\n```\n```python\nprint(1)\n```"
    assert extract(response, Extract.LONGEST) == CODE


def test_a_shorter_fence_inside_a_longer_one_is_code() -> None:
    response = '````python\ns = """\n```\n"""\n````'
    assert extract(response) == 's = """\n```\n"""\n'


def test_a_block_that_closes_behind_code_does_not_swallow_the_next() -> None:
    response = "```python\nprint(2)```\nOutput:\n```\n2\n```\n```python\nprint(1)\n```"
    assert python_blocks(response) == ["print(2)\n", CODE]


def test_only_the_fences_indentation_is_taken_off() -> None:
    response = "1. So:\n    ```python\n    if 1:\n        print(1)\n  x = 2\n    ```"
    assert extract(response) == "if 1:\n    print(1)\nx = 2\n"


def test_bare_text_is_taken_as_it_is() -> None:
    assert extract("x = 1", Extract.BARE) == "x = 1"


PLAIN = "```\nx = 1\n```\nOr:\n```\ndef f(): return 1\n```\nIt prints:\n```\n1\n```"


@pytest.mark.parametrize(
    ("how", "program"),
    [
        (Extract.ONLY, None),
        (Extract.FIRST, "x = 1\n"),
        (Extract.LAST, "1\n"),
        (Extract.LONGEST, "def f(): return 1\n"),
        (Extract.CLASS_OR_DEF, "def f(): return 1\n"),
    ],
)
def test_blocks_without_a_language_count_if_none_is_declared(
    how: Extract, program: str | None
) -> None:
    assert extract(PLAIN, how) == program
    declared = f"{PLAIN}\n```python\nprint(1)\n```"
    assert extract(declared, how) == CODE


@pytest.mark.parametrize(
    ("response", "shows"),
    [
        ("```python\nprint(1)\n```\n```\n1\n```", Shown.ONE),
        (SEVERAL, Shown.SEVERAL),
        (PLAIN, Shown.PLAIN),
        ("```cpp\nint x;\n```", Shown.NONE),
        ("print(1)", Shown.NONE),
    ],
)
def test_what_a_response_shows(response: str, shows: Shown) -> None:
    assert shown(response) == shows


@pytest.mark.parametrize(
    "line",
    [
        "```" + " " * 10**6 + "`",
        "`" * 10**6 + " x`",
        " " * 10**6 + "x",
        "~~~" + "\t" * 10**6 + "\x85a",
    ],
)
def test_long_lines_are_read_in_linear_time(line: str) -> None:
    """In quadratic time each would take hours."""
    assert extract(f"{line}\n```python\nprint(1)\n```") in (CODE, None)


_LINES = """
```python|```|```|```python|```|``` |```{.python}|```python title=<x>|```a`b|````|  ```|x```
    ```|- ```python|> ```|# h|- x|1. y|> z|  y|    y|\ty|y||[a]: /u|[a]:|1. [a]|- [b]: <|===|---
   ---|- ---|a < b|x <template> y|<!-- c|-->|`<b>`|<div>|</div>|y [x](y|- [ ] z|a[0]|'|<a href='
"""


def test_plain_responses_are_read_as_all_others_are() -> None:
    """What needs no reading of Markdown does not get it; other line ends always do."""
    random_ = random.Random(3)
    lines = [piece for line in _LINES.strip("\n").split("\n") for piece in line.split("|")]
    for _ in range(6000):
        response = "\n".join(random_.choices(lines, k=random_.randint(2, 12)))
        read = response.replace("\n", "\r\n")
        assert python_blocks(response) == python_blocks(read), response
        assert shown(response) == shown(read), response

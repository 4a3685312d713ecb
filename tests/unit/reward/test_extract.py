"""From an answer to the one program it declares."""

import pytest

from reward.extract import Extraction, extract

CODE = "print(1)\n"


@pytest.mark.parametrize(
    "answer",
    [
        "```python\nprint(1)\n```",
        "Sure:\n```Python\nprint(1)\n```\nDone.",
        "```py\r\nprint(1)\n```",
        "```python3\nprint(1)\n```",
        "````python\nprint(1)\n````",
        '```python title="a.py"\nprint(1)\n```',
        "```\nnot this\n```\n```python\nprint(1)\n```\n```text\n1\n```",
        "  ```python\nprint(1)\n  ```  ",
    ],
)
def test_one_declared_block_is_the_program(answer: str) -> None:
    assert extract(answer) == CODE


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "nothing"),
        ("print(1)", "no fence"),
        ("```\nprint(1)\n```", "no language declared"),
        ("```pythonic\nprint(1)\n```", "another language"),
        ("```python\nprint(1)\n", "cut off"),
        ("```python\nprint(1)\n``", "fence too short"),
        ("````python\nprint(1)\n```", "closing fence shorter than the opening one"),
        ("```python\nprint(1)\n```\n```python\nprint(2)\n```", "two programs"),
        ("text ```python\nprint(1)\n```", "fence inside a line"),
    ],
)
def test_anything_else_is_no_program(answer: str, why: str) -> None:
    assert extract(answer) is None, why


def test_a_shorter_fence_inside_a_longer_one_is_code() -> None:
    answer = '````python\ns = """\n```\n"""\n````'
    assert extract(answer) == 's = """\n```\n"""\n'


def test_the_last_block_may_be_asked_for() -> None:
    answer = "```python\nprint(2)\n```\n```python\nprint(1)\n```"
    assert extract(answer, Extraction.LAST) == CODE
    assert extract("no code", Extraction.LAST) is None


def test_bare_text_is_taken_as_it_is() -> None:
    assert extract("x = 1", Extraction.BARE) == "x = 1"

"""Blocks are found where Markdown shows them, and nothing is found that a page does not show.

Compared with markdown-it-py, which passes the tests of CommonMark's specification.
"""

import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from reward import inline
from reward.extract import Extract, extract, python_blocks
from reward.hiding import Hiding
from reward.page import Page

MARKDOWN = MarkdownIt("commonmark", {"html": True})

FORMS = [
    "1. ```python\n   print(1)\n   ```",
    "- ```python\n  print(1)\n  ```",
    "* ```python\n  print(1)\n  ```\n",
    "+ ~~~python\n  print(1)\n  ~~~",
    "> ```python\n> print(1)\n> ```",
    ">```python\n>print(1)\n>```",
    "10) ```python\n    print(1)\n    ```",
    "   2. ```python\n      print(1)\n      ```",
    "-   ```python\n    print(1)\n    ```",
    "-\t```python\n\tprint(1)\n\t```",
    "- > ```python\n  > print(1)\n  > ```",
    "> - ```python\n>   print(1)\n>   ```",
    "> > ```python\n> > print(1)\n> > ```",
    "- - ```python\n    print(1)\n    ```",
    "1. - ```python\n     print(1)\n     ```",
    "- Solution:\n  ```python\n  print(1)\n  ```",
    "- Solution:\n\n  ```python\n  print(1)\n  ```\n- Done.",
    "1. One\n2. Two\n   ```python\n   print(1)\n   ```\n3. Three",
    "> Solution:\n> ```python\n> print(1)\n> ```\n> Done.",
    "> ```python\n> print(1)\n\nThat is all.",
    "> ```python\n> print(1)\nThat is all.",
    "- ```python\n  print(1)\n\nThat is all.",
    "- ```python\n  print(1)\n- That is all.",
    "- ```python\n  if 1:\n\n      print(1)\n  ```",
    "> ```python\n> if 1:\n>\n>     print(1)\n> ```",
    "> ```python\n>     print(1)\n> ```",
    "- ```python\n      print(1)\n  ```",
    "Text\n1. ```python\n   print(1)\n   ```",
    "Text\n2. ```python\n   print(2)\n   ```",
    "Text\n> ```python\n> print(1)\n> ```",
    "> Text\n```python\nprint(1)\n```",
    "- Text\n```python\nprint(1)\n```",
    "# Heading\n```python\nprint(1)\n```",
    "Heading\n---\n```python\nprint(1)\n```",
    "- - -\n```python\nprint(1)\n```",
    "<div>\n\n```python\nprint(1)\n```\n\n</div>",
    "<!-- a note -->\n```python\nprint(1)\n```",
    "[a]: /u 'title'\n```python\nprint(1)\n```",
    "- ```text\n  print(2)\n  ```\n- ```python\n  print(1)\n  ```",
    "- ```python\n  print(2)\n  ```\n- ```python\n  print(1)\n  ```",
    "```python\n- print(1)\n> print(2)\n```",
    "- ```python\n  > print(1)\n  - print(2)\n  ```",
    "1.```python\nprint(1)\n```",
    "-```python\nprint(1)\n```",
    "1234567890. ```python\n            print(1)\n            ```",
]


def _shown(response: str) -> list[str]:
    """The blocks of Python that markdown-it shows."""
    tokens = MARKDOWN.parse(response)
    return [token.content for token in tokens if token.type == "fence" and token.info == "python"]


@pytest.mark.parametrize("response", FORMS)
def test_blocks_in_lists_and_quotes_are_those_that_markdown_shows(response: str) -> None:
    assert python_blocks(response) == _shown(response)


def test_the_table_shows_many_programs() -> None:
    assert len(FORMS) >= 40
    assert sum(bool(_shown(form)) for form in FORMS) >= 30


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("1. So:\n   ```python\nif 1:\n    print(1)\n   ```", "if 1:\n    print(1)\n"),
        ("- ```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("> - ```python\n> if 1:\n>     print(1)\n>   ```\n", "if 1:\n    print(1)\n"),
        ("<answer>\n```python\nprint(1)\n```\n</answer>", "print(1)\n"),
        (
            "<answer>\n```python\nif a<b:\n\n    print(1)\n```\n</answer>",
            "if a<b:\n\n    print(1)\n",
        ),
        ("Use `<title>` here:\n```python\nprint(1)\n```", "print(1)\n"),
        ("[Two pointers]\n---\n```python\nprint(1)\n```", "print(1)\n"),
        ("[1, 2] and more\n=====\n\n```python\nprint(1)\n```", "print(1)\n"),
        ("[1]: https://a.b\n---\n\n```python\nprint(1)\n```", "print(1)\n"),
        ("If a < b:\n    ```python\n    print(1)\n    ```", "print(1)\n"),
    ],
)
def test_careless_responses_have_their_program_too(response: str, program: str) -> None:
    assert extract(response, Extract.ONLY) == program


HIDDEN = {
    "an item that is none, below a definition": "[a]: /u\n-\n\n```python\nprint(1)\n```",
    "a paragraph's comment": "x <!--\n    ```python\n    print(1)\n    ```\n-->",
    "a definition's title": "[a]: /u (\n    ```python\n    print(1)\n    ```\n    )",
    "a link's title": "[a](/u (\n    ```python\n    print(1)\n    ```\n    ))",
    "an element within a line": "x <template> y\n\n```python\nprint(1)\n```",
    "an element after a span of code": "`x` <template>\n\n```python\nprint(1)\n```",
    "an element after an escape": "\\`<template>`\n\n```python\nprint(1)\n```",
    "an element after an attribute": "<a title='`'> <template> `\n\n```python\nprint(1)\n```",
    "an element that an example ends": (
        "<template>\n\n```\n</template>\n```\n```python\nprint(1)\n```"
    ),
    "an element that is nested": (
        "<template><template></template>\n\n```python\nprint(1)\n```\n</template>"
    ),
    "a comment that an example ends": "> <!--\n\n```\n-->\n```\n```python\nprint(1)\n```",
    "a comment after a comment": "<!-- a --> <!--\n```python\nprint(1)\n```\n-->",
    "a comment in raw code": "<div>\n```python\n# <!--\nprint(1)\n# -->\n```\n</div>",
    "a script that another end ends": (
        "<script>\n</style>\n\n```\n</script>\n```\n```python\nprint(1)\n```"
    ),
    "a script within a comment": (
        "<script><!--<script></script>\n\n```python\nprint(1)\n```\n--></script>"
    ),
    "a block that is out of step": (
        "```python\nx = 1```\n```\n<!--\n```\n```python\nprint(1)\nprint(2)\n```\n-->"
    ),
    "a bar of progress": "<progress>\n\n```python\nprint(1)\n```\n\n</progress>",
    "a note for old browsers": "<ruby>a<rp>\n\n```python\nprint(1)\n```\n\n</rp></ruby>",
    "a drawing's description": "<svg><desc>\n\n```python\nprint(1)\n```\n\n</desc></svg>",
    "a formula's note": (
        "<math><annotation-xml encoding='text/html'>\n\n```python\nprint(1)\n```\n\n</math>"
    ),
    "an inline frame": "<iframe>\n\n```python\nprint(1)\n```\n\n</iframe>",
}


@pytest.mark.parametrize("how", HIDDEN)
def test_nothing_hidden_is_found(how: str) -> None:
    assert "print(1)" not in "".join(python_blocks(HIDDEN[how]))


class _Reader(HTMLParser):
    """Collects the text that a page shows."""

    HIDING = frozenset({"script", "style", "title", "template", "textarea", "dialog"})
    EMPTY = frozenset({"br", "img", "hr"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, bool]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        hides = tag in self.HIDING or "hidden" in given or "none" in (given.get("style") or "")
        if tag not in self.EMPTY:
            self.open.append((tag, hides))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """Up to the innermost one of that name, as browsers do; if there is none, nothing."""
        if tag in [name for name, _ in self.open]:
            while self.open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not any(hides for _, hides in self.open):
            self.text += data


PIECES = """
```python|```|```py|~~~python|~~~|````|    ```python|    ```|  ```python|- ```python|1. ```python
2. ```python|> ```python|> ```|  ```|   ```|- x|1. y|> z|- > q|>|-|<!--|-->|text <!-- a|b --> c
<template>|</template>|x <template> y|`<template>` z|<div>|</div>|<answer>|</answer>|[a]: /u '|'
[a]: /u "t"|"|![i](u '|')|<script>|</script>|<title>|</title>|<pre>|</pre>|<?x|?>|<!A|***|---|===
# h|T|T|T|T|    T|  T|> T|- T|T```|||\tT|\t```|> - ```python|> - T|  > T|<a href='`'>|`|``
\\`<template>`|<textarea>|</textarea>|<style>|</style>|> <!--|- <!--|   - ```python|     ```
     T|1) ```python|    - ```python|# <!--|<details>|<summary>s</summary>|</details>|<!-->|<!--->
<div hidden>|<DIV Hidden=''>|> <div hidden>|- <div hidden>|x <span hidden> y|</span>|x </span> y
<div style="display:none">|</div>|`</div>`|\\</div>|<a title="</div>">|<div|hidden>|<p|style='
none'>|> hidden>|<b hidden>|</b>|<br hidden>|<div title="<div hidden>">|- </div>|> </div>|```|</div>
"""
ALPHABET = [piece for line in PIECES.strip("\n").split("\n") for piece in line.split("|")]


def _soup(random_: random.Random) -> str:
    pieces = (random_.choice(ALPHABET) for _ in range(random_.randint(2, 14)))
    return "\n".join(piece.replace("T", f"token{n}") for n, piece in enumerate(pieces))


def test_no_page_hides_what_is_found() -> None:
    random_ = random.Random(1)
    found = 0
    for _ in range(4000):
        response = _soup(random_)
        tokens = re.findall(r"token\d+", "".join(python_blocks(response)))
        if tokens:
            reader = _Reader()
            reader.feed(MARKDOWN.render(response))
            assert not [token for token in tokens if token not in reader.text], response
            found += 1
    assert found > 100


def _nested(random_: random.Random, depth: int) -> Iterator[str]:
    """Lines of a well-formed response: paragraphs and blocks in lists and quotes."""
    for _ in range(random_.randint(1, 3)):
        kind = random_.choice(("text", "code", "code", "quote", "item"))
        if kind in ("text", "code") or depth == 0:
            fence = random_.choice(("```", "~~~", "````"))
            code = ["if 1:", "", "    x = [1]", "> 2", "- 3", "1. 4", "<!--", "y = 5"]
            body = random_.sample(code, random_.randint(1, len(code)))
            yield from [f"{fence}python", *body, fence] if kind != "text" else ["Some text."]
        else:
            marker = ">" if kind == "quote" else random_.choice(("-", "*", "1.", "12)"))
            gap = random_.choice((1, 1, 2, 4))
            first = f"{marker}{' ' * gap}"
            other = "> " if kind == "quote" else " " * len(first)
            for number, line in enumerate(_nested(random_, depth - 1)):
                prefix = first if number == 0 and kind == "item" else other
                yield f"{prefix}{line}" if line or kind == "quote" or number == 0 else ""
        yield ""


def test_well_formed_responses_are_read_as_markdown_reads_them() -> None:
    random_ = random.Random(2)
    blocks = 0
    for _ in range(500):
        response = "\n".join(_nested(random_, 3))
        assert python_blocks(response) == _shown(response), response
        blocks += len(_shown(response))
    assert blocks > 800


@pytest.mark.parametrize(
    "response",
    [
        "> " * 200_000,
        "- " * 200_000 + "x",
        "\n".join([">" * 20] * 5_000),
        "- ```\nx\n" * 30_000,
        "- ```\nx\n" + "  ~~~\n" * 50_000,
        "<a" + " a" * 300_000,
        "<title " + "`" * 300_000,
        "<title> " + "<a " * 100_000,
        "x " + "](" * 100_000,
        "<div>\n" + "<title>\n<template>\n" * 30_000,
    ],
)
def test_hostile_responses_are_read_in_linear_time(response: str) -> None:
    """In quadratic time each would take hours."""
    assert extract(f"{response}\n\n```python\nprint(1)\n```") in ("print(1)\n", None)


@pytest.mark.parametrize(
    ("text", "hides"),
    [
        ("Plain text.", (False, False)),
        ("Use `<script>` and `a`.", (False, False)),
        ("a < b and c > d", (False, False)),
        ("<b>bold</b> and `<title>`", (False, False)),
        ("see <https://example.org/`> and `<title>`", (False, False)),
        ("the <title>x</title> tag", (True, False)),
        ("the <title> tag", (True, True)),
        ("`<title>", (True, True)),
        ("``<title>`", (True, True)),
        ("x <!-- y --> z", (True, False)),
        ("x <!-- y", (False, False)),
        ("[a](b)", (True, False)),
    ],
)
def test_what_a_paragraph_hides(text: str, hides: tuple[bool, bool]) -> None:
    hiding = Hiding()
    assert (inline.hides(hiding, text, 0), hiding.now) == hides


def test_a_line_knows_its_containers() -> None:
    page = Page(["> - x", "> ", ">   y", "lazy", "", "z"])
    assert [[one.is_quote for one in line.containers] for line in page.lines] == [
        [True, False],
        [True, False],
        [True, False],
        [True, False],
        [],
        [],
    ]
    assert [line.rest for line in page.lines] == ["x", "", "y", "lazy", "", "z"]

"""From a model's response to the one program it shows."""

import re
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from reward.containers import Container, Cursor, enter
from reward.page import Line, Page

# Any indentation, since responses are careless of it; an info string after backticks has none.
# No two parts of it may match the same text: lines are hostile, and some are very long.
_FENCE = re.compile(r"([ \t]*)(?:(`{3,})([^`]*)|(~{3,})(.*))")
# The first word of an info string, in braces and with a point in some dialects.
_WORD = re.compile(r"[\s{.]*+([\w+#.-]*)")
_PYTHON = re.compile(r"(?:python|py)(?:\d+(?:\.\d+)*)?", re.IGNORECASE | re.ASCII)
# A line with three backticks, as an opening fence and as a closing one, which it may both be.
_WITH_BACKTICKS = re.compile(r"^(?=(```(?!`)[^`\n]*$)?)(?=(```[ \t]*$)?).*```.*", re.MULTILINE)
# Text that may be HTML, or a definition above a line that may be an underline.
_MAY_HIDE = re.compile(r"<[A-Za-z/!?]|^[^A-Za-z_\n]*\[", re.MULTILINE)
# A tag behind the blocks: some hide all of a page.
_MAY_REACH_BACK = re.compile(r"<[A-Za-z]")
_LINE_END = re.compile(r"\r\n?|\n")
_DEFINITION = re.compile(r"^(?:class|def|async\s+def)\s", re.MULTILINE)


class Extract(StrEnum):
    """Which code block of a response is its program.

    The blocks are those declared as Python or, if there is none, those that declare no language.
    """

    ONLY = "only"  # the one block; none if there are several
    FIRST = "first"  # the first of them
    LAST = "last"  # the last
    LONGEST = "longest"  # the one with the most text; of equals the last
    CLASS_OR_DEF = "class_or_def"  # the last that defines a class or a function, else the last
    BARE = "bare"  # the whole response, which is no Markdown


class Shown(StrEnum):
    """What a response shows of Python code."""

    ONE = "one block"
    SEVERAL = "several blocks"
    PLAIN = "no language"  # only blocks that declare none
    NONE = "no block"


def shown(response: str) -> Shown:
    """What the rules of `Extract` have to choose from."""
    languages = [block.language for block in _blocks(response)]
    declared = languages.count(_Language.PYTHON)
    if declared:
        return Shown.ONE if declared == 1 else Shown.SEVERAL
    return Shown.PLAIN if _Language.NONE in languages else Shown.NONE


def extract(response: str, how: Extract = Extract.LONGEST) -> str | None:
    """The program in `response`, or None if there is none, or, for `ONLY`, more than one."""
    if how == Extract.BARE:
        return response
    blocks = python_blocks(response)
    if not blocks or (how == Extract.ONLY and len(blocks) > 1):
        return None
    if how == Extract.FIRST:
        return blocks[0]
    if how == Extract.LONGEST:
        return max(reversed(blocks), key=len)
    if how == Extract.CLASS_OR_DEF:
        defining = [block for block in blocks if _DEFINITION.search(block)]
        return (defining or blocks)[-1]
    return blocks[-1]


def python_blocks(response: str) -> list[str]:
    """The contents of all closed blocks of Python that a reader sees, in order.

    A block opens with a line of three or more backticks or tildes, however indented, followed by
    python, py or one of these with a version (any case) as the first word, at the top or in a list
    or a quote. It closes with at least as many of the same at the end of a line, alone or after
    code; or with the quote; or with the list, if no such line follows. One that never closes is no
    block, since the response was cut off. What a browser does not show is not found: HTML comments,
    elements of which it shows nothing, what attributes and style sheets hide. If no block is
    declared as Python, those that declare no language count.
    """
    blocks = _blocks(response)
    declared = [block for block in blocks if block.language == _Language.PYTHON]
    plain = [block for block in blocks if block.language == _Language.NONE]
    return [block.text() for block in declared or plain]


def _blocks(response: str) -> list["_Block"]:
    """All closed blocks that a reader sees, of whatever language."""
    plain = _plain_blocks(response)
    return _blocks_of_page(response) if plain is None else plain


def _plain_blocks(response: str) -> list["_Block"] | None:
    """The blocks of a response that need no reading of Markdown; None if this one may.

    As most are: all fences are three backticks in the first column, opening and closing by turns,
    and nothing before the last of them could hide one. Such a fence is in no quote or list.
    """
    if "\r" in response or "~~~" in response:
        return None
    blocks: list[_Block] = []
    before = 0
    lines = _WITH_BACKTICKS.finditer(response)
    for opens in lines:
        if not opens[1] or _MAY_HIDE.search(response, before, opens.start()):
            return None
        closes = next(lines, None)
        if closes is None:
            break
        if not closes[2]:
            return None
        block = _Block("```", 0, _language(opens[1][3:]), [], closed=True)
        code = response[opens.end() + 1 : closes.start()]
        block.lines = code.split("\n")[:-1]
        blocks.append(block)
        before = closes.end()
    return None if _MAY_REACH_BACK.search(response, before) else blocks


def _blocks_of_page(response: str) -> list["_Block"]:
    page = Page(_LINE_END.split(response))
    if page.hides_all:
        return []
    lines = page.lines
    blocks: list[_Block] = []
    at = 0
    while at < len(lines):
        block = _opened(lines[at])
        at += 1
        if block is not None:
            at = block.read(lines, at)
            if block.closed and not block.hidden:
                blocks.append(block)
    return blocks


class _Language(Enum):
    PYTHON = auto()
    OTHER = auto()
    NONE = auto()


@dataclass
class _Block:
    """A block, as far as it has been read."""

    fence: str
    indent: int
    language: _Language
    containers: list[Container]
    lines: list[str] = field(default_factory=list)
    closed: bool = False
    hidden: bool = False

    def read(self, lines: list[Line], start: int) -> int:
        """Read the block that goes on with line `start`; the number of the line after it.

        Responses do not always indent the code of a block in a list. Such code belongs to the
        block if a closing fence comes next; else the block has ended with the list.
        """
        outside = -1  # the first line that Markdown does not count to the list
        for number in range(start, len(lines)):
            line = lines[number]
            rest, missing = self._of_this(line.text)
            if any(container.is_quote for container in missing):
                self.closed = True
                return number
            outside = number if missing and outside < 0 else outside
            if missing and rest.strip() and not "".join(self.lines).strip():
                self._start_outside(rest, missing)
                missing = []
            less = sum(container.width for container in missing)
            if self.closes(rest, less):
                self.hidden |= line.hidden
                return number + 1
            if outside >= 0 and _opened(line):
                break
            self.add(rest, less)
            self.hidden |= line.hidden
        if outside < 0:
            return len(lines)
        self.closed = True
        del self.lines[outside - start :]
        self.hidden = any(line.hidden for line in lines[start:outside])
        return outside

    def _start_outside(self, rest: str, missing: list[Container]) -> None:
        """All of the code is less indented than its list, and taken as it stands."""
        del self.containers[len(self.containers) - len(missing) :]
        self.indent = len(rest) - len(rest.lstrip(" \t"))

    def _of_this(self, text: str) -> tuple[str, list[Container]]:
        """What the block's containers leave of a line, and those that it is not in."""
        if not self.containers:
            return text, self.containers
        cursor = Cursor(text)
        missing = self.containers[enter(self.containers, cursor) :]
        return cursor.rest, missing

    def closes(self, line: str, less: int) -> bool:
        """End the block if it ends here; code before the fence in its line is the block's last."""
        text = line.rstrip()
        code = text.rstrip(self.fence[0])
        if len(text) - len(code) < len(self.fence):
            return False
        if code.strip():
            if self.language != _Language.PYTHON:
                return False  # prose: a span of code, not the end of the block
            self.add(code.rstrip(), less)
        self.closed = True
        return True

    def add(self, line: str, less: int) -> None:
        """A line of the block, without the indentation of its opening fence.

        `less` columns of its list's are missing, so that those may be left, too.
        """
        indent = len(line) - len(line.lstrip(" \t"))
        self.lines.append(line[min(indent, self.indent + less) :])

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


def _opened(line: Line) -> _Block | None:
    match = _FENCE.fullmatch(line.rest.rstrip())
    if match is None or line.hidden:
        return None
    indent, fence, info = len(match[1]), match[2] or match[4], match[3] or match[5] or ""
    return _Block(fence, indent, _language(info), [*line.containers])


def _language(info: str) -> _Language:
    """The language that a block declares: the first word, whatever stands behind it."""
    if not info.strip():
        return _Language.NONE
    word = _WORD.match(info)[1]  # type: ignore[index]
    return _Language.PYTHON if _PYTHON.fullmatch(word) else _Language.OTHER

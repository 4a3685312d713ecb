"""From a model's response to the one program it shows."""

import re
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

# Any indentation, since responses put blocks into lists; an info string after backticks has none.
# No two parts of it may match the same text: lines are hostile, and some are very long.
_FENCE = re.compile(r"([ \t]*)(?:(`{3,})([^`]*)|(~{3,})(.*))")
_LANGUAGE = re.compile(r"\{?\.?(?:python|py)(?:\d+(?:\.\d+)*)?\}?", re.IGNORECASE)
# What starts HTML of which a page shows nothing, in lists and quotes too, and what ends it.
_HIDDEN_ENDS = {
    "<!--": "-->", "<?": "?>", "<![cdata[": "]]>", "<!": ">", "<script": "</script>",
    "<style": "</style>", "<title": "</title>", "<template": "</template>",
    "<textarea": "</textarea>", "<dialog": "</dialog>",
}  # fmt: skip
_HIDING = re.compile(
    r"[ \t]*(?:(?:[-*+>]|\d{1,9}[.)])[ \t]*)*(" + "|".join(map(re.escape, _HIDDEN_ENDS)) + ")",
    re.IGNORECASE,
)
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
    python, py or one of these with a version (any case). It closes with at least as many of the
    same at the end of a line: alone, or after code. One that never closes is no block, since the
    response was cut off. What stands in an HTML comment, or in another element of which a page
    shows nothing by itself, is not found. If no block is declared as Python, those that declare no
    language count.
    """
    blocks = _blocks(response)
    declared = [block for block in blocks if block.language == _Language.PYTHON]
    plain = [block for block in blocks if block.language == _Language.NONE]
    return [block.text() for block in declared or plain]


def _blocks(response: str) -> list["_Block"]:
    """All closed blocks that a reader sees, of whatever language."""
    blocks: list[_Block] = []
    block: _Block | None = None
    hidden_until = ""
    for line in _LINE_END.split(response):
        if hidden_until:
            hidden_until = "" if hidden_until in line.lower() else hidden_until
        elif block is None:
            block = _opened(line)
            hidden_until = _hides(line)
        elif block.closes(line):
            blocks.append(block)
            block = None
        else:
            block.add(line)
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
    lines: list[str]

    def closes(self, line: str) -> bool:
        """Whether the block ends here; code before the fence in its line is the block's last."""
        text = line.rstrip()
        code = text.rstrip(self.fence[0])
        if len(text) - len(code) < len(self.fence):
            return False
        if code.strip():
            if self.language != _Language.PYTHON:
                return False  # prose: a span of code, not the end of the block
            self.add(code.rstrip())
        return True

    def add(self, line: str) -> None:
        """A line of the block, without the indentation of its opening fence."""
        indent = len(line) - len(line.lstrip(" \t"))
        self.lines.append(line[min(indent, self.indent) :])

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


def _opened(line: str) -> _Block | None:
    match = _FENCE.fullmatch(line.rstrip())
    if match is None:
        return None
    indent, fence, info = len(match[1]), match[2] or match[4], match[3] or match[5] or ""
    return _Block(fence, indent, _language(info), [])


def _language(info: str) -> _Language:
    words = info.split()
    if not words:
        return _Language.NONE
    return _Language.PYTHON if _LANGUAGE.fullmatch(words[0]) else _Language.OTHER


def _hides(line: str) -> str:
    """What ends the hidden HTML that starts in this line and goes on after it; mostly nothing."""
    match = _HIDING.match(line)
    end = _HIDDEN_ENDS[match[1].lower()] if match else ""
    return "" if match and end in line[match.end() :].lower() else end

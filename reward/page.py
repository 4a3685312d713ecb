"""A response as Markdown shows it: which containers hold a line, and whether a reader sees it.

The block structure of CommonMark (0.31.2): quotes, items of lists, fenced and indented code, raw
HTML, headings, and paragraphs with their lazy lines. Pure, and linear in the response's length.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto

from reward.hiding import FOREVER, RawHtml, paragraph_hides

_MAX_DEPTH = 10
"""Of containers in one another; deeper ones are text."""

_MARKER = re.compile(r"([-+*]|\d{1,9}[.)])(?=[ \t]|$)")
_RULE = re.compile(r"(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})")
_UNDERLINE = re.compile(r"(?:=+|-+)[ \t]*")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
_OPENING = re.compile(r"(`{3,})[^`]*|(~{3,}).*")
_TYPE_1 = re.compile(r"<(?:script|pre|style|textarea)(?=[\s>]|$)", re.IGNORECASE)
_TYPE_1_END = re.compile(r"</(?:script|pre|style|textarea)>", re.IGNORECASE)
_TYPES_2_TO_5 = (
    (re.compile(r"<!--"), re.compile(r"-->")),
    (re.compile(r"<\?"), re.compile(r"\?>")),
    (re.compile(r"<!\[CDATA\["), re.compile(r"\]\]>")),
    (re.compile(r"<![A-Za-z]"), re.compile(r">")),
)
_TYPE_6 = re.compile(
    r"</?(?:address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|"
    r"details|dialog|dir|div|dl|dt|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|"
    r"head|header|hr|html|iframe|legend|li|link|main|menu|menuitem|nav|noframes|ol|optgroup|option|"
    r"p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr|track|ul)"
    r"(?=[\s>]|/>|$)",
    re.IGNORECASE,
)
_ATTRIBUTE = r"""\s+[A-Za-z_:][\w.:-]*(?:\s*=\s*(?:[^\s"'=<>`]+|'[^']*'|"[^"]*"))?"""
_TYPE_7 = re.compile(rf"(?:<[A-Za-z][\w-]*(?:{_ATTRIBUTE})*\s*/?>|</[A-Za-z][\w-]*\s*>)\s*")
_BLANK = re.compile(r"\s*$")
_BLANKS = re.compile(r"[ \t]*")
_ORDINARY = re.compile(r" {0,3}[A-Za-z(\"']")
"""The start of a line that starts no block but a paragraph."""


@dataclass(frozen=True)
class Container:
    """A quote, or an item of a list whose content starts `width` columns in."""

    width: int = 0

    @property
    def is_quote(self) -> bool:
        return self.width == 0


class Cursor:
    """A place in a line; tabs stop at every fourth column, and may be half taken."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.column = self.spare = 0

    @property
    def start(self) -> int:
        """Where the next character is that is no blank."""
        return _BLANKS.match(self.text, self.at).end()  # type: ignore[union-attr]

    @property
    def indent(self) -> int:
        """Columns of blanks from here."""
        start = self.start
        columns = self.spare
        if "\t" not in self.text[self.at : start]:
            return columns + start - self.at
        for character in self.text[self.at : start]:
            columns += 1 if character == " " else 4 - (self.column + columns) % 4
        return columns

    @property
    def rest(self) -> str:
        """The text from here."""
        return " " * self.spare + self.text[self.at :]

    @property
    def content(self) -> str:
        """The text from here without the blanks in front."""
        return self.text[self.start :]

    @property
    def blank(self) -> bool:
        return self.start == len(self.text)

    def skip(self, columns: int) -> None:
        """Go on by so many columns of blanks, or as many as there are."""
        while columns > 0:
            if self.spare == 0:
                character = self.text[self.at : self.at + 1]
                if character not in (" ", "\t") or not character:
                    return
                self.at += 1
                self.spare = 1 if character == " " else 4 - self.column % 4
            taken = min(columns, self.spare)
            self.spare, self.column, columns = (
                self.spare - taken,
                self.column + taken,
                columns - taken,
            )

    def take(self, characters: int) -> None:
        """Go on by so many characters that are no blanks, after the blanks."""
        self.skip(self.indent)
        self.at += characters
        self.column += characters


def enter(containers: list[Container], cursor: Cursor) -> int:
    """Move the cursor into as many of the containers as the line goes on with; how many."""
    for count, container in enumerate(containers):
        if container.is_quote:
            if not cursor.text.startswith(">", cursor.start) or cursor.indent > 3:
                return count
            cursor.take(1)
            cursor.skip(1)
        elif cursor.blank:
            continue
        elif cursor.indent >= container.width:
            cursor.skip(container.width)
        else:
            return count
    return len(containers)


@dataclass
class Line:
    """A line of a response, as the page has it.

    Attributes:
        text: the whole of it.
        rest: what its containers leave of it.
        containers: those that hold it, from the outermost.
        hidden: whether a reader may not see all of it.
    """

    text: str
    rest: str = ""
    containers: list[Container] = field(default_factory=list)
    hidden: bool = False


class _Leaf(Enum):
    NONE = auto()
    PARAGRAPH = auto()
    FENCE = auto()
    HTML = auto()


class Page:
    """Reads a response line by line; `lines` has what became of each."""

    def __init__(self, texts: list[str]) -> None:
        self.lines: list[Line] = []
        self._stack: list[Container] = []
        self._leaf = _Leaf.NONE
        self._paragraph: list[Line] = []
        self._fence = ""
        self._html_end: re.Pattern[str] = _BLANK
        self._raw = RawHtml()
        self._empty_item = False
        for text in texts:
            self._read(text)
        self._end_leaf()

    def _read(self, text: str) -> None:
        line = Line(text, text)
        self.lines.append(line)
        if not self._stack and self._is_plain(text):
            if self._leaf != _Leaf.FENCE:
                self._continue(line)
            line.hidden = self._raw.until == FOREVER
            return
        cursor = Cursor(text)
        matched = enter(self._stack, cursor)
        whole = matched == len(self._stack)
        if self._leaf in (_Leaf.FENCE, _Leaf.HTML) and not whole:
            self._leave(matched)
        if self._leaf == _Leaf.FENCE:
            self._go_on_with_code(cursor)
        elif self._leaf == _Leaf.HTML:
            self._go_on_with_html(cursor, line)
        else:
            self._start(cursor, line, matched)
        line.rest, line.containers = cursor.rest, list(self._stack)
        line.hidden |= self._raw.until == FOREVER

    def _is_plain(self, text: str) -> bool:
        """Whether a line at the top is more of the same code, or of a paragraph; most are."""
        if self._leaf == _Leaf.FENCE:
            return self._fence not in text
        return self._leaf != _Leaf.HTML and bool(_ORDINARY.match(text))

    def _go_on_with_code(self, cursor: Cursor) -> None:
        text = cursor.content.rstrip(" \t")
        closes = len(text) >= len(self._fence) and not text.strip(self._fence[0])
        if closes and cursor.indent <= 3:
            self._leaf = _Leaf.NONE

    def _go_on_with_html(self, cursor: Cursor, line: Line) -> None:
        if self._html_end is _BLANK and cursor.blank:
            self._end_leaf()
            return
        line.hidden |= self._raw.hides(cursor.rest)
        if self._html_end is not _BLANK and self._html_end.search(cursor.rest):
            self._end_leaf()

    def _start(self, cursor: Cursor, line: Line, matched: int) -> None:
        """A line outside of code and HTML: new containers, then what they hold."""
        whole = matched == len(self._stack)
        paragraph = self._leaf == _Leaf.PARAGRAPH
        if cursor.blank:
            self._leave(matched)
            if self._empty_item and whole and self._stack and not self._stack[-1].is_quote:
                self._stack.pop()
            self._empty_item = False
            return
        new = self._new_containers(cursor, matched, interrupts=paragraph and whole)
        if cursor.blank:
            self._empty_item = True
            return
        self._empty_item = False
        lazy = paragraph and not new
        if cursor.indent > 3:
            if not lazy:
                self._leave(matched + new)
            else:
                self._continue(line)
        elif not self._block(cursor, line, matched + new, lazy, whole and not new):
            if not lazy:
                self._leave(matched + new)
            self._continue(line)

    def _new_containers(self, cursor: Cursor, matched: int, interrupts: bool) -> int:
        new = 0
        while cursor.indent <= 3 and matched + new < _MAX_DEPTH and not cursor.blank:
            text = cursor.content
            if text.startswith(">"):
                container = Container()
            elif (marker := _MARKER.match(text)) and not _RULE.fullmatch(text):
                after = Cursor(cursor.text)
                after.__dict__.update(cursor.__dict__)
                after.take(len(marker[0]))
                empty = after.blank
                if (
                    interrupts
                    and not new
                    and (empty or marker[0] not in ("-", "+", "*", "1.", "1)"))
                ):
                    return new
                blanks = after.indent
                width = cursor.indent + len(marker[0])
                container = Container(width + (1 if empty or blanks > 4 else blanks))
            else:
                return new
            self._leave(matched + new)
            if container.is_quote:
                cursor.take(1)
                cursor.skip(1)
            else:
                width = cursor.indent
                cursor.take(len(marker[0]))
                cursor.skip(container.width - width - len(marker[0]))
            self._stack.append(container)
            new += 1
        return new

    def _block(self, cursor: Cursor, line: Line, depth: int, lazy: bool, same: bool) -> bool:
        """Start a block other than a paragraph, if the line does."""
        text = cursor.content
        if lazy and same and _UNDERLINE.fullmatch(text):
            if self._paragraph[0].rest.lstrip().startswith("["):
                self._raw.until = FOREVER  # an item, if all the paragraph is definitions
            self._continue(line)
            self._end_leaf()
            return True
        if _HEADING.match(text) or _RULE.fullmatch(text):
            self._leave(depth)
            self._continue(line)
            self._end_leaf()
            return True
        if match := _OPENING.fullmatch(text):
            self._leave(depth)
            self._leaf, self._fence = _Leaf.FENCE, match[1] or match[2]
            return True
        if (end := _html_end(text, may_be_any=not lazy)) is not None:
            self._leave(depth)
            self._leaf, self._html_end = _Leaf.HTML, end
            self._go_on_with_html(cursor, line)
            return True
        return False

    def _continue(self, line: Line) -> None:
        self._leaf = _Leaf.PARAGRAPH
        self._paragraph.append(line)

    def _leave(self, depth: int) -> None:
        """End the open leaf, and all containers below this depth."""
        self._end_leaf()
        del self._stack[depth:]

    def _end_leaf(self) -> None:
        if self._leaf == _Leaf.HTML:
            self._raw.close()
        elif self._leaf == _Leaf.PARAGRAPH:
            own, rest = paragraph_hides("\n".join(line.text for line in self._paragraph))
            for line in self._paragraph:
                line.hidden |= own
            if rest:
                self._raw.until = FOREVER
            self._paragraph = []
        self._leaf = _Leaf.NONE


def _html_end(text: str, may_be_any: bool) -> re.Pattern[str] | None:
    """What ends the raw HTML that a line starts; None if it starts none."""
    if not text.startswith("<"):
        return None
    if _TYPE_1.match(text):
        return _TYPE_1_END
    for start, end in _TYPES_2_TO_5:
        if start.match(text):
            return end
    if _TYPE_6.match(text) or (may_be_any and _TYPE_7.fullmatch(text)):
        return _BLANK
    return None

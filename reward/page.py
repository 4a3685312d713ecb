"""A response as Markdown shows it: which containers hold a line, and whether a reader sees it.

The block structure of CommonMark (0.31.2): quotes, items of lists, fenced and indented code, raw
HTML, headings, and paragraphs with their lazy lines. Pure, and linear in the response's length.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto

from reward import inline
from reward.containers import RULE, Container, Cursor, enter, opening
from reward.hiding import Hiding
from reward.rawhtml import hidden_lines

_INTERRUPTING = (">", "-", "+", "*", "1.", "1)")
_MAX_DEPTH = 10
"""Of containers in one another; deeper ones are text."""

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
_RULES = re.compile(r"\{|@import", re.IGNORECASE)
_RUNS = re.compile(r"</script|\ssrc\s*=|\shref\s*=", re.IGNORECASE)
_ORDINARY = re.compile(r" {0,3}[A-Za-z(\"']")
"""The start of a line that starts no block but a paragraph."""


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
        self._own: list[Line] = []
        self._fence = ""
        self._html_end: re.Pattern[str] = _BLANK
        self._hiding = Hiding()
        self._sheet = -1  # the line from which on there is a style sheet or a script
        self._empty_item = False
        for text in texts:
            self._read(text)
        self._end_leaf()
        self.hides_all = self._hides_all(texts)

    def _read(self, text: str) -> None:
        line = Line(text, text)
        self.lines.append(line)
        if not self._stack and self._is_plain(text):
            if self._leaf != _Leaf.FENCE:
                self._continue(line, text)
            line.hidden = self._hiding.now
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
        line.hidden |= self._hiding.now and self._leaf != _Leaf.HTML

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
        line.rest = cursor.rest
        self._own.append(line)
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
                self._continue(line, cursor.rest)
        elif not self._block(cursor, line, matched + new, lazy, whole and not new):
            if not lazy:
                self._leave(matched + new)
            self._continue(line, cursor.rest)

    def _new_containers(self, cursor: Cursor, matched: int, interrupts: bool) -> int:
        """Enter the quotes and items that the line starts; how many.

        What would go on with a paragraph interrupts it only as an item that has content and, if it
        is numbered, is the first.
        """
        new = 0
        while matched + new < _MAX_DEPTH and (opened := opening(cursor)):
            empty, marker = opened.empty, opened.marker
            if interrupts and not new and (empty or marker not in _INTERRUPTING):
                break
            self._leave(matched + new)
            opened.enter(cursor)
            self._stack.append(opened.container)
            new += 1
        return new

    def _block(self, cursor: Cursor, line: Line, depth: int, lazy: bool, same: bool) -> bool:
        """Start a block other than a paragraph, if the line does."""
        text = cursor.content
        if lazy and same and _UNDERLINE.fullmatch(text):
            above = "\n".join(line.rest for line in self._own)
            if above.lstrip().startswith("[") and "]:" in above and not RULE.fullmatch(text):
                self._hiding.forever = True  # an item, if all the paragraph is definitions
            self._continue(line, cursor.rest)
            self._end_leaf()
            return True
        if _HEADING.match(text) or RULE.fullmatch(text):
            self._leave(depth)
            self._continue(line, cursor.rest)
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

    def _continue(self, line: Line, rest: str) -> None:
        self._leaf = _Leaf.PARAGRAPH
        line.rest = rest
        self._own.append(line)

    def _leave(self, depth: int) -> None:
        """End the open leaf, and all containers below this depth."""
        self._end_leaf()
        del self._stack[depth:]

    def _end_leaf(self) -> None:
        """End the open leaf: what it hides is known now."""
        depth, texts = len(self._stack), [line.rest for line in self._own]
        if self._leaf == _Leaf.HTML:
            for line, hidden in zip(
                self._own, hidden_lines(self._hiding, texts, depth), strict=True
            ):
                line.hidden |= hidden
        elif self._leaf == _Leaf.PARAGRAPH and inline.hides(self._hiding, "\n".join(texts), depth):
            for line in self._own:
                line.hidden = True
        if self._sheet < 0 and (self._hiding.style or self._hiding.script):
            self._sheet = max(0, len(self.lines) - len(self._own) - 1)
        self._own = []
        self._leaf = _Leaf.NONE

    def _hides_all(self, texts: list[str]) -> bool:
        """Whether a reader may see nothing: a style sheet or a script reaches all of the page."""
        following = "\n".join(texts[self._sheet :]) if self._sheet >= 0 else ""
        return (
            self._hiding.everything
            or (self._hiding.style and bool(_RULES.search(following)))
            or (self._hiding.script and bool(_RUNS.search(following)))
        )


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

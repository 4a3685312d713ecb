"""What a browser hides of a page, as far as its HTML has been read: elements, and what ends them.

Whatever is in doubt counts as hidden: an element that does not plainly end hides all that follows.
Fed by `rawhtml` and `inline` with a page's HTML in its order. Pure.
"""

import re
from dataclasses import dataclass

from reward import tags
from reward.tags import NEVER_SHOWN, PLAIN, VOID, Tag

_ENDS = {
    name: re.compile(rf"</{name}(?=[ \t\n\f\r/>])[^<>]*+>", re.IGNORECASE | re.ASCII)
    for name in NEVER_SHOWN
}
_COMMENT_END = re.compile(r"--!?>")
_MARKUP = re.compile(r"<[A-Za-z/!?]")


@dataclass(frozen=True)
class _Open:
    """An element that is open.

    Attributes:
        depth: in how many containers of Markdown's it started.
        raw: whether it started in raw HTML, not in a paragraph, which is an element as well.
    """

    name: str
    depth: int
    raw: bool


class Hiding:
    """Reads the HTML of a page piece by piece.

    Attributes:
        forever: whether all that follows is hidden.
        everything: whether what stands before it may be hidden as well.
        style, script: whether an element of that name has started.
        unfinished: whether the last tag of raw HTML takes what follows for its attributes.
    """

    def __init__(self) -> None:
        self.forever = self.everything = self.style = self.script = self.unfinished = False
        self._open: list[_Open] = []

    @property
    def now(self) -> bool:
        """Whether what comes next is hidden."""
        return self.forever or bool(self._open)

    def start(self, tag: Tag, depth: int, raw: bool) -> None:
        """An element starts, other than one that is never shown."""
        if self.forever or tag.name in VOID:
            return
        if self._open or tags.hides(tag):
            self.forever = tag.name not in PLAIN
            self._open.append(_Open(tag.name, depth, raw))

    def end(self, name: str, depth: int, raw: bool, trusted: bool) -> None:
        """An end tag: what is hidden ends only if it is plainly that of the innermost element."""
        if self.forever or not self._open:
            return
        last = self._open.pop()
        if not trusted or (last.name, last.depth) != (name, depth) or (last.raw and not raw):
            self.forever = True

    def outside(self, tag: Tag) -> None:
        """Note what a tag does to what stands outside its element."""
        self.everything |= tags.reaches_out(tag)
        self.style |= tag.name == "style"
        self.script |= tag.name == "script"


def end_of(hiding: Hiding, tag: Tag, text: str, offset: int = 0) -> int:
    """Where an element that is never shown ends; below zero if all that follows is hidden.

    It plainly ends where it holds no markup and stands in nothing hidden. `offset` is that of the
    tag's own places in `text`.
    """
    if not hiding.now:
        start = tag.end + offset
        end = _ENDS[tag.name].search(text, start)
        if end is not None and not _MARKUP.search(text, start, end.start()):
            return end.end()
    hiding.forever = True
    return -1


def closer_of(text: str, start: int) -> str:
    """What ends a comment, an instruction, a section or a declaration."""
    if text.startswith("<!--", start):
        return "-->"
    if text.startswith("<?", start):
        return "?>"
    return "]]>" if text[start : start + 9].lower() == "<![cdata[" else ">"


def remark(text: str, start: int) -> tuple[int, bool]:
    """Where it ends for a browser, and whether it does so for Markdown as well."""
    closer = closer_of(text, start)
    if closer == "-->":
        if (match := _COMMENT_END.search(text, start + 2)) is None:
            return len(text), False
        return match.end(), match[0] == closer and match.start() >= start + 4
    end = text.find(">", start + 2) + 1
    if end == 0:
        return len(text), False
    return end, end - len(closer) >= start + 2 and text.endswith(closer, start, end)

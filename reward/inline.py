"""What a paragraph hides of itself and of the page. Pure.

Its tags are those that CommonMark has in it, outside of spans of code; what looks like one and
would hide something counts as well.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator

from reward import tags
from reward.hiding import Hiding, closer_of, end_of, remark
from reward.tags import NEVER_SHOWN, Tag

_INLINE = re.compile(r"\\.|`+|<(?=[A-Za-z/!?])", re.DOTALL)
_BLANKS = r"[ \t\n]"
_INLINE_TAG = re.compile(
    rf"""</[A-Za-z][A-Za-z0-9-]*+{_BLANKS}*+>
        |<[A-Za-z][A-Za-z0-9-]*+
          (?:{_BLANKS}++[A-Za-z_:][A-Za-z0-9_.:-]*+
             (?:{_BLANKS}*+={_BLANKS}*+(?:[^\s"'=<>`]++|'[^']*+'|"[^"]*+"))?+)*+
          {_BLANKS}*+/?>""",
    re.VERBOSE,
)
_AUTOLINK = re.compile(r"<[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*+>")
_LOOSE_TAG = re.compile(r"<[A-Za-z][^<>]*+>")
_LOOSE_TAGS = re.compile(r"<[A-Za-z/][^<>]*+>")
# What may take quotation marks of code: targets and titles of links, labels, definitions.
_TAKES_MARKS = re.compile(r"\]\((?![\w./:#?&=%+-]*\))|\]\[|\]:")
_PLAIN_TEXT = re.compile(r"[^`\\\[\]|$]*+")
_LABEL = re.compile(r"\]\[[^\]\n]*\n")


def hides(hiding: Hiding, text: str, depth: int) -> bool:
    """Whether a paragraph may hide some of itself.

    Or it is hidden as it starts. `depth` is the number of Markdown's containers around it.
    """
    before, hiding.unfinished = hiding.now, False
    own = "<" in text and _Paragraph(hiding, text, depth).hides
    return before or own or _puts_away(text)


class _Paragraph:
    """One paragraph, whose tags are those that CommonMark has, and what looks like one that hides.

    Attributes:
        hides: whether one of them hides some of the paragraph.
    """

    def __init__(self, hiding: Hiding, text: str, depth: int) -> None:
        self.hiding, self.text, self.depth = hiding, text, depth
        self.hides = False
        self._plain = bool(_PLAIN_TEXT.fullmatch(text))
        self._marks = not _TAKES_MARKS.search(text)
        at = 0
        for start in self._tags():
            if start >= at:
                at = self._tag(start)

    def _tags(self) -> Iterator[int]:
        """Where a `<` may start markup: outside of spans of code, escapes and other markup."""
        text, runs = self.text, _runs(self.text)
        at, last = 0, dict[str, int]()
        while match := _INLINE.search(text, at):
            at = match.end()
            if match[0] != "<":
                at = self._after_code(match, runs)
            elif text[at] in "!?":
                at = self._remark(match.start(), last)
            elif tag := _INLINE_TAG.match(text, match.start()):
                yield match.start()
                at = tag.end()
            elif link := _AUTOLINK.match(text, match.start()):
                at = link.end()
            elif _LOOSE_TAG.match(text, match.start()):
                yield match.start()

    def _after_code(self, match: re.Match[str], runs: dict[int, list[int]]) -> int:
        """The end of the span of code that starts here, or of what is none, or of an escape."""
        if match[0][0] == "\\":
            return match.end() if self._marks else match.start() + 1
        closers = runs[len(match[0])] if self._marks else []
        following = bisect_right(closers, match.start())
        return closers[following] + len(match[0]) if following < len(closers) else match.end()

    def _remark(self, start: int, last: dict[str, int]) -> int:
        """A comment, an instruction or a declaration, if it ends; where the text goes on."""
        closer = closer_of(self.text, start)
        if closer not in last:
            last[closer] = self.text.rfind(closer)
        if last[closer] < start + 2:
            return start + 1
        after, whole = remark(self.text, start)
        self.hiding.forever |= not whole
        self.hides = True
        return after

    def _tag(self, start: int) -> int:
        exact = _INLINE_TAG.match(self.text, start)
        match = exact or _LOOSE_TAG.match(self.text, start)
        tag = tags.read(match[0], 0)  # type: ignore[index]
        if tag.closing:
            self.hiding.end(tag.name, self.depth, raw=False, trusted=self._plain)
            return start
        self.hiding.outside(tag)
        if tag.name in NEVER_SHOWN:
            self.hides = True
            return self._never_shown(tag, start)
        self.hiding.start(tag, self.depth, raw=False)
        self.hides |= self.hiding.now
        return start

    def _never_shown(self, tag: Tag, start: int) -> int:
        """Only in plain text is it certain that its end tag is one."""
        self.hiding.forever |= not self._plain
        return max(start, end_of(self.hiding, tag, self.text, start))


def _puts_away(text: str) -> bool:
    """Whether a paragraph may hide text without an element.

    In the target or title of a link, in a definition, in a label or a tag that goes over lines.
    """
    if "](" in text or "![" in text or (text.lstrip().startswith("[") and "]:" in text):
        return True
    if "\n" not in text:
        return False
    return bool(_LABEL.search(text)) or any("\n" in tag[0] for tag in _LOOSE_TAGS.finditer(text))


def _runs(text: str) -> dict[int, list[int]]:
    """Where the runs of quotation marks of code start, by their length."""
    runs: dict[int, list[int]] = defaultdict(list)
    for run in re.finditer("`+", text):
        runs[len(run[0])].append(run.start())
    return runs

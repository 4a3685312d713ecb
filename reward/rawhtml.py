"""What a block of raw HTML hides of itself and of the page. Pure.

A browser gets such a block as it stands, so that it is read as browsers read it.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from reward import tags
from reward.hiding import Hiding, end_of, remark
from reward.tags import NEVER_SHOWN, Tag

_RAW = re.compile(r"<(?:!|\?|/?[A-Za-z]|/)")
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})", re.MULTILINE)


def hidden_lines(hiding: Hiding, lines: Sequence[str], depth: int) -> Iterator[bool]:
    """Per line of the block, whether some of it is hidden.

    `depth` is the number of Markdown's containers around it.
    """
    spans = sorted(_Raw(hiding, "\n".join(lines), depth).spans)
    start, reach, number = 0, 0, 0
    for line in lines:
        end = start + len(line) + 1
        while number < len(spans) and spans[number][0] < end:
            reach = max(reach, spans[number][1])
            number += 1
        yield reach > start
        start = end


class _Raw:
    """One block of raw HTML, read as a browser reads it.

    Attributes:
        spans: where its hidden parts start and end.
    """

    def __init__(self, hiding: Hiding, text: str, depth: int) -> None:
        self.hiding, self.text, self.depth = hiding, text, depth
        self.spans: list[tuple[int, int]] = []
        self._fences = [match.start() for match in _FENCE.finditer(text)]
        self._go_on_with_tag()
        self._hidden_from = 0 if hiding.now else -1
        at = 0
        while match := _RAW.search(text, at):
            at = self._markup(match[0], match.start())
            self._note(match.start(), at)
        if self._hidden_from >= 0:
            self.spans.append((self._hidden_from, len(text) + 1))

    def _go_on_with_tag(self) -> None:
        """The block before may have ended within a tag, which goes on here."""
        if self.hiding.unfinished:
            tag = tags.read(f"<a {self.text}", 0)
            self.hiding.forever |= tag.in_quotes or tags.hides(tag)
            self.hiding.outside(tag)
        self.hiding.unfinished = False

    def _note(self, start: int, end: int) -> None:
        """Begin or end a hidden part, if the markup in between does."""
        if self.hiding.now and self._hidden_from < 0:
            self._hidden_from = start
        elif not self.hiding.now and self._hidden_from >= 0:
            self.spans.append((self._hidden_from, end))
            self._hidden_from = -1

    def _markup(self, kind: str, start: int) -> int:
        """What starts here; where the text after it starts."""
        if kind[1] in "!?":
            end, whole = remark(self.text, start)
            self.hiding.forever |= not whole
            self.spans.append((start, end))
            return end
        if kind == "</":
            end = self.text.find(">", start) + 1 or len(self.text)
            self._over_lines(start, end)
            return end
        tag = tags.read(self.text, start)
        self._over_lines(start, tag.end)
        if not tag.finished:
            self.hiding.unfinished = True
            if not self._in_fence(start):
                self.hiding.outside(tag)
                never = tag.name in NEVER_SHOWN or self.hiding.now
                self.hiding.forever |= tag.in_quotes or tags.hides(tag) or never
            return tag.end
        if tag.closing:
            trusted = not self._in_fence(start)
            self.hiding.end(tag.name, self.depth, raw=True, trusted=trusted)
            return tag.end
        self.hiding.outside(tag)
        if tag.name in NEVER_SHOWN:
            return self._never_shown(tag)
        self.hiding.start(tag, self.depth, raw=True)
        return tag.end

    def _never_shown(self, tag: Tag) -> int:
        if (end := end_of(self.hiding, tag, self.text)) < 0:
            return tag.end
        self.spans.append((tag.start, end))
        return end

    def _over_lines(self, start: int, end: int) -> None:
        """A tag takes the lines that it goes over, but for those of the block of code it is in.

        Such a block is none to Markdown, but what responses write in it is code with `<` and `>`.
        """
        if self._in_fence(start):
            following = bisect_right(self._fences, start)
            start = self._fences[following] if following < len(self._fences) else end
        if (after := self.text.find("\n", start, end)) >= 0:
            self.spans.append((after + 1, end))

    def _in_fence(self, at: int) -> bool:
        return bisect_right(self._fences, at) % 2 == 1

"""What a page hides of the HTML in a response: comments, and elements that show nothing. Pure.

Whatever is in doubt counts as hidden: an element that does not end where it plainly does hides all
that follows.
"""

import re
from bisect import bisect_right
from collections import defaultdict

FOREVER = "\n"
"""The end of what is hidden to the end of the page: no line holds it."""

_ELEMENTS = (
    "script", "style", "title", "template", "textarea", "dialog", "iframe", "noembed", "noframes",
    "noscript", "object", "audio", "video", "canvas", "datalist", "select", "progress", "meter",
    "rp", "desc", "annotation-xml",
)  # fmt: skip
_ENDS = {"<!--": "-->", "<?": "?>", "<![cdata[": "]]>", "<!": ">"}
_ENDS |= {f"<{name}": f"</{name}>" for name in _ELEMENTS}
_ELEMENT = rf"<(?:{'|'.join(_ELEMENTS)})(?=[\s/>]|$)"
_HIDING = re.compile(rf"<!--|<!\[CDATA\[|<![A-Za-z]|<\?|{_ELEMENT}", re.IGNORECASE)
_INLINE = re.compile(r"\\.|`+|<(?=[A-Za-z/])", re.DOTALL)
_INLINE_ELEMENT = re.compile(_ELEMENT, re.IGNORECASE)
# No tag with attributes: a quotation mark in these may hide the end of a span of code.
_SIMPLE_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9-]*\s*/?>|<[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*>")
# What may put text out of sight inside a paragraph: a comment or an instruction, the target or the
# title of a link, a definition, a label or a tag that goes over several lines.
_PUTS_AWAY = re.compile(
    r"<!--(?s:.*)-->|<\?(?s:.*)\?>|<![A-Za-z\[](?s:.*)>|\]\(|!\[|\A\s*\[(?s:.*)\]:|\]\[[^\]\n]*\n"
    r"|<[A-Za-z/][\w-]*\s[^<>]*\n[^<>]*>|<[A-Za-z/][\w-]*\n[^<>]*>"
)


class RawHtml:
    """Reads the lines of raw HTML one after another; `until` says what ends what is hidden."""

    def __init__(self) -> None:
        self.until = ""

    def hides(self, line: str) -> bool:
        """Whether any of the line is hidden."""
        text, at, hidden = line.lower(), 0, bool(self.until)
        while True:
            if self.until:
                at = self._end(text, at)
                if at < 0:
                    return True
                self.until = ""
            match = _HIDING.search(text, at)
            if match is None:
                return hidden
            hidden, at = True, match.end()
            self.until = _ENDS.get(match[0], ">")

    def _end(self, text: str, start: int) -> int:
        """Where the hidden part ends; below zero if not in this line."""
        end = text.find(self.until, start)
        inside = text[start:] if end < 0 else text[start:end]
        name = self.until[2:-1]
        if self.until.startswith("</") and (f"<{name}" in inside or "<!--" in inside):
            self.until = FOREVER  # nested: the page counts them in its own way
            return -1
        return end + len(self.until) if end >= 0 else -1

    def close(self) -> None:
        """The HTML ends here for Markdown; what is hidden by then stays hidden."""
        if self.until:
            self.until = FOREVER


def paragraph_hides(text: str) -> tuple[bool, bool]:
    """Whether a paragraph may hide some of its own text, and whether it hides what follows it."""
    element = _raw_element(text)
    if element is None:
        return bool(_PUTS_AWAY.search(text)), False
    end = f"</{element[1:].lower()}>"
    plain = "`" not in text and "\\" not in text
    return True, not (plain and text.lower().count(end) == 1 == text.lower().count(element.lower()))


def _raw_element(text: str) -> str | None:
    """The first tag in a paragraph, outside of spans of code, that starts a hiding element."""
    if not _INLINE_ELEMENT.search(text):
        return None
    runs: dict[int, list[int]] = defaultdict(list)
    for run in re.finditer("`+", text):
        runs[len(run[0])].append(run.start())
    at, trusted = 0, True
    while match := _INLINE.search(text, at):
        at = match.end()
        if match[0][0] == "`" and trusted:
            closers = runs[len(match[0])]
            next_one = bisect_right(closers, match.start())
            if next_one < len(closers):
                at = closers[next_one] + len(match[0])
        elif match[0] == "<":
            if found := _INLINE_ELEMENT.match(text, match.start()):
                return found[0]
            if tag := _SIMPLE_TAG.match(text, match.start()):
                at = tag.end()
            else:
                trusted = False
    return None

"""Tags of HTML: where they end, what attributes they have, and which of them hide what they hold.

A tag is read as browsers read it. Pure, and linear in the text's length.
"""

import re
from dataclasses import dataclass, field
from html import unescape

NEVER_SHOWN = frozenset(
    {
        "script", "style", "title", "template", "textarea", "dialog", "iframe", "noembed",
        "noframes", "noscript", "object", "audio", "video", "canvas", "datalist", "select",
        "progress", "meter", "rp", "desc", "annotation-xml", "math", "foreignobject", "marquee",
        "bdo", "fencedframe", "portal",
    }
)  # fmt: skip
"""Elements of which a page shows nothing, or not what they hold as it stands."""

VOID = frozenset(
    {
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param",
        "source", "track", "wbr",
    }
)  # fmt: skip
"""Elements that hold nothing."""

PLAIN = frozenset(
    {
        "abbr", "article", "aside", "b", "blockquote", "code", "del", "details", "div", "em",
        "figcaption", "figure", "footer", "header", "i", "ins", "kbd", "main", "mark", "ol", "p",
        "pre", "q", "s", "section", "small", "span", "strong", "sub", "summary", "sup", "u", "ul",
        "var",
    }
)  # fmt: skip
"""Elements that end at their end tag, if what they hold is well nested and of these only."""

_NAME = re.compile(r"<(/?)([A-Za-z][^ \t\n\f\r/>]*+)")
_GAP = re.compile(r"[ \t\n\f\r/]*+")
# What a browser takes for an attribute, however odd; `open` if a quoted value never ends.
_ATTRIBUTE = re.compile(
    r"""(?P<name>=?[^ \t\n\f\r/>=]++|=)
        (?:[ \t\n\f\r]*+=[ \t\n\f\r]*+
           (?:"(?P<double>[^"]*+)(?:"|(?P<open>\Z))
             |'(?P<single>[^']*+)(?:'|(?P<open1>\Z))
             |(?P<bare>[^ \t\n\f\r>"'][^ \t\n\f\r>]*+))?+)?+""",
    re.VERBOSE,
)
_LENGTH = r"(?:auto|0|\d{1,2}(?:\.\d+)?(?:px|pt|em|rem|%))"
# Declarations of which no value can put text out of sight.
_HARMLESS_STYLE = re.compile(
    rf"""text-align:(?:left|right|center|justify|start|end)
        |display:(?:block|inline|inline-block|flex|grid)
        |font-weight:(?:normal|bold|[1-9]00)|font-style:(?:normal|italic)
        |font-family:[\w\ ,'"-]+
        |font-size:(?:1[0-9]px|[23][0-9]px|[12](?:\.\d+)?r?em|[89]\d%|1\d\d%|small|medium|large)
        |(?:margin|padding)(?:-(?:top|right|bottom|left))?:{_LENGTH}(?:\ {_LENGTH}){{0,3}}
        |(?:max-)?width:[1-9]\d{{1,3}}(?:px|%|em|rem)
        |border(?:-(?:top|right|bottom|left))?:\d{{1,2}}px\ (?:solid|dashed|dotted)\ [\#\w]+
        |border-radius:\d{{1,2}}px""",
    re.VERBOSE | re.ASCII,
)
_HIDING_CLASS = re.compile(
    r"hid(?:e|den)|invisible|none|sr-only|collapsed?|offscreen", re.IGNORECASE
)
_HANDLER = re.compile(r"on[a-z]{3,}")


@dataclass(frozen=True)
class Tag:
    """A tag, as far as it goes.

    Attributes:
        name: in small letters.
        end: where the text after it starts; its text's end if it is not finished.
        finished: whether it ends at all.
        in_quotes: whether it ends within a value in quotation marks, which is not finished.
    """

    name: str
    closing: bool
    start: int
    end: int
    finished: bool
    in_quotes: bool = False
    attributes: dict[str, str] = field(default_factory=dict)


def read(text: str, start: int) -> Tag:
    """The tag that starts here with `<` or `</` and a letter."""
    match = _NAME.match(text, start)
    assert match is not None
    attributes: dict[str, str] = {}
    in_quotes, at = False, _GAP.match(text, match.end()).end()  # type: ignore[union-attr]
    while found := _ATTRIBUTE.match(text, at):
        value = found["double"] or found["single"] or found["bare"] or ""
        attributes.setdefault(_lower(found["name"]), value)
        in_quotes = found["open"] is not None or found["open1"] is not None
        at = _GAP.match(text, found.end()).end()  # type: ignore[union-attr]
    finished = text.startswith(">", at)
    end = at + 1 if finished else len(text)
    return Tag(_lower(match[2]), bool(match[1]), start, end, finished, in_quotes, attributes)


def hides(tag: Tag) -> bool:
    """Whether an element that starts so may hide what it holds.

    It does by `hidden` or `popover`; it may by a style that is not known to be harmless, by a
    colour, and by a class of a name that says so.
    """
    attributes = tag.attributes
    if not {"hidden", "popover", "color", "bgcolor"}.isdisjoint(attributes):
        return True
    if _HIDING_CLASS.search(attributes.get("class", "")):
        return True
    return not _is_harmless(unescape(attributes.get("style", "")))


def reaches_out(tag: Tag) -> bool:
    """Whether a tag may hide what stands outside its element, before it or after it."""
    attributes = tag.attributes
    match tag.name:
        case "html" | "body":
            if hides(tag):
                return True
        case "link" | "meta":
            return "stylesheet" in attributes.get("rel", "").lower() or "http-equiv" in attributes
        case "template":
            if any(name.startswith("shadowroot") for name in attributes):
                return True
    return "srcdoc" in attributes or any(
        _HANDLER.fullmatch(name) and value for name, value in attributes.items()
    )


def _is_harmless(style: str) -> bool:
    declarations = (one.partition(":") for one in style.split(";") if one.strip())
    return all(
        _HARMLESS_STYLE.fullmatch(f"{name.strip().lower()}:{value.strip().lower()}")
        for name, _, value in declarations
    )


def _lower(name: str) -> str:
    """In small letters as HTML has it: some others would become ASCII."""
    return name.lower() if name.isascii() else name

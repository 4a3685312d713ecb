"""Quotes and items of lists in Markdown: how a line goes on with them, what starts one. Pure."""

import re
from copy import copy
from dataclasses import dataclass

RULE = re.compile(r"(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})")
"""A thematic break, which looks like items."""

_MARKER = re.compile(r"([-+*]|\d{1,9}[.)])(?=[ \t]|$)")
_BLANKS = re.compile(r"[ \t]*")


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


@dataclass(frozen=True)
class Opening:
    """A container that starts at a cursor.

    Attributes:
        marker: what starts it.
        empty: whether nothing follows in an item's line.
    """

    container: Container
    marker: str
    empty: bool

    def enter(self, cursor: Cursor) -> None:
        """Move the cursor to the container's content."""
        indent = cursor.indent
        cursor.take(len(self.marker))
        quote = self.container.is_quote
        cursor.skip(1 if quote else self.container.width - indent - len(self.marker))


def opening(cursor: Cursor) -> Opening | None:
    """The container that starts at the cursor, or None."""
    text, indent = cursor.content, cursor.indent
    if indent > 3:
        return None
    if text.startswith(">"):
        return Opening(Container(), ">", empty=False)
    marker = _MARKER.match(text)
    if marker is None or RULE.fullmatch(text):
        return None
    after = copy(cursor)
    after.take(len(marker[0]))
    empty, blanks = after.blank, after.indent
    width = indent + len(marker[0]) + (1 if empty or blanks > 4 else blanks)
    return Opening(Container(width), marker[0], empty)

"""Tokens laid out as the text they spell: rows and columns of a monospace page. Pure, no drawing.

Legend: a *cell* is the part of one token that stands on one row; a token with line breaks has
several cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

TAB_COLUMNS = 4
NEWLINE_MARK = "↵"


@dataclass(frozen=True)
class Cell:
    """`text` of token `token` at `row` and `column`, both from 0; `breaks` marks the sign for a
    line break.
    """

    token: int
    row: int
    column: int
    text: str
    breaks: bool = False


@dataclass(frozen=True)
class Layout:
    """`line_numbers` [rows] hold the source line from 1, or None if a long line goes on."""

    cells: tuple[Cell, ...]
    columns: int
    line_numbers: tuple[int | None, ...]

    @property
    def rows(self) -> int:
        return len(self.line_numbers)


def lay_out(tokens: Sequence[str], max_columns: int) -> Layout:
    """Place tokens so that line breaks fall where the text has them; rows longer than `max_columns`
    are wrapped.

    The sign for a line break may stand one column beyond `max_columns`.
    """
    cells: list[Cell] = []
    line_numbers: list[int | None] = [1]
    row, column, line = 0, 0, 1
    for index, token in enumerate(tokens):
        for number, piece in enumerate(token.replace("\r\n", "\n").split("\n")):
            if number > 0:
                cells.append(Cell(index, row, column, NEWLINE_MARK, breaks=True))
                row, column, line = row + 1, 0, line + 1
                line_numbers.append(line)
            rest = piece.replace("\t", " " * TAB_COLUMNS)
            while rest:
                if column >= max_columns:
                    row, column = row + 1, 0
                    line_numbers.append(None)
                part, rest = rest[: max_columns - column], rest[max_columns - column :]
                cells.append(Cell(index, row, column, part))
                column += len(part)
    if len(line_numbers) > 1 and not any(cell.row == row for cell in cells):
        line_numbers.pop()
    columns = max((cell.column + len(cell.text) for cell in cells), default=1)
    return Layout(tuple(cells), columns, tuple(line_numbers))


def window(rows: int, focus: Sequence[int], max_rows: int) -> range:
    """At most `max_rows` consecutive rows that show `focus` (ascending rows): all, or from a little
    above its first.
    """
    if rows <= max_rows:
        return range(rows)
    above = max_rows // 4
    start = max(0, focus[0] - above) if focus and focus[-1] >= max_rows else 0
    start = min(start, rows - max_rows)
    return range(start, start + max_rows)


def readable_tokens(tokens: Sequence[str], text: str) -> tuple[str, ...]:
    """Tokens as text: those in a byte-level vocabulary's alphabet ("Ġdef", "Ċ") are decoded, others
    left alone.

    `text` is what the tokens spell; tokens that already occur in it one after the other are text. A
    character split over tokens shows as the replacement sign in each.
    """
    alphabet = byte_alphabet()
    joined = "".join(tokens)
    spelled = joined.startswith(text) or joined in text
    if spelled or not any(sign in joined for sign in "ĠĊ") or any(sign in text for sign in "ĠĊ"):
        return tuple(tokens)
    return tuple(
        bytes(alphabet[sign] for sign in token).decode(errors="replace")
        if all(sign in alphabet for sign in token)
        else token
        for token in tokens
    )


@cache
def byte_alphabet() -> dict[str, int]:
    """The printable sign for each byte in byte-level BPE (Radford et al. 2019), inverted: sign to
    byte.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }

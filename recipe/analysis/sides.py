"""The two texts of an episode as they are shown: where tokens stand, and which are marked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.font_manager import get_font

from recipe.analysis.episodes import Episode
from recipe.analysis.printable import REPLACEMENT
from recipe.analysis.token_layout import Layout, lay_out, readable_tokens, window
from refiner_worker.diff import token_diff

MAX_COLUMNS = 64
MAX_ROWS = 40


@dataclass(frozen=True)
class Difference:
    """What a' changes in a: per token of a whether a' lacks it, and the indices of a before which
    a' only adds.
    """

    dropped: tuple[bool, ...]
    insertions: tuple[int, ...]


def difference(before: Sequence[str], after: Sequence[str]) -> Difference:
    """Compare by tokens, with the alignment that the refiner's own diff uses; an index may be
    len(before), the end of a.
    """
    dropped = [False] * len(before)
    insertions = []
    for (start, end), _ in token_diff(before, after).hunks:
        dropped[start:end] = [True] * (end - start)
        if start == end:
            insertions.append(start)
    return Difference(tuple(dropped), tuple(insertions))


@dataclass(frozen=True)
class Side:
    """One of the two texts as it is drawn: `marked` and `ce` per token, `rows` the visible part of
    `layout`.

    `insertions` are indices of tokens before which the other text has more; `ce` is None for a,
    and for tokens that the policy was not asked for.
    """

    title: str
    layout: Layout
    rows: range
    marked: tuple[bool, ...]
    insertions: tuple[int, ...]
    ce: tuple[float | None, ...] | None


def sides_of(episode: Episode) -> tuple[Side, Side]:
    """a with what a' drops or inserts marked, and a' with the tokens that are new in it marked."""
    change = difference(episode.answer_tokens, episode.refined_tokens)
    title = f"a, the rollout: R(a) = {signed(episode.reward)}, {_words(episode.verdict)}"
    refined = f"R(a′) = {signed(episode.refined_reward)}, {_words(episode.refined_verdict)}"
    edited = tuple(not flag for flag in episode.copied)
    before = lay_out(_page_tokens(episode.answer_tokens, episode.answer), MAX_COLUMNS)
    after = lay_out(_page_tokens(episode.refined_tokens, episode.refined), MAX_COLUMNS)
    insertions = set(change.insertions)
    marked = tuple(flag or i in insertions for i, flag in enumerate(change.dropped))
    return (
        Side(title, before, _visible(before, marked), change.dropped, change.insertions, None),
        Side(f"a′, refined: {refined}", after, _visible(after, edited), edited, (), episode.ce),
    )


def _page_tokens(tokens: Sequence[str], text: str) -> list[str]:
    return [displayable(token) for token in readable_tokens(tokens, text)]


def _visible(layout: Layout, marked: Sequence[bool]) -> range:
    return window(layout.rows, [cell.row for cell in layout.cells if marked[cell.token]], MAX_ROWS)


def signed(reward: float) -> str:
    """A reward with its sign, or that it is absent."""
    return "not logged" if math.isnan(reward) else f"{reward:+.2f}".replace("-", "−")


def _words(verdict: str) -> str:
    return verdict.replace("_", " ") or "no verdict"


def displayable(token: str) -> str:
    """The token with every sign that the monospace font lacks replaced, so that the columns stay in
    line.
    """
    known = _known_signs()
    return "".join(
        sign if sign in "\n\t\r" or ord(sign) in known else REPLACEMENT for sign in token
    )


@cache
def _known_signs() -> frozenset[int]:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
    return frozenset(get_font(str(path)).get_charmap()) - set(range(0x20))


def marked_spans(side: Side) -> list[tuple[int, int, int]]:
    """(row, first column, column after the last) of each run of marked cells that is visible."""
    spans: list[tuple[int, int, int]] = []
    for cell in side.layout.cells:
        if (
            not side.marked[cell.token]
            or cell.row not in side.rows
            or (cell.breaks and side.ce is None)
        ):
            continue
        end = cell.column + len(cell.text)
        if spans and spans[-1][0] == cell.row and spans[-1][2] == cell.column:
            spans[-1] = (cell.row, spans[-1][1], end)
        else:
            spans.append((cell.row, cell.column, end))
    return spans


def insertion_points(side: Side) -> list[tuple[int, int]]:
    """(row, column) in a at which a' has more text, where visible."""
    starts: dict[int, tuple[int, int]] = {}
    for cell in side.layout.cells:
        starts.setdefault(cell.token, (cell.row, cell.column))
    if side.layout.cells:
        last = side.layout.cells[-1]
        starts[last.token + 1] = (last.row, last.column + len(last.text))
    points = [starts[index] for index in side.insertions if index in starts]
    return [point for point in points if point[0] in side.rows]


def omission(side: Side) -> str:
    """How many rows of a long text are not shown."""
    above, below = side.rows.start, side.layout.rows - side.rows.stop
    parts = [f"{above} rows above"] if above else []
    parts += [f"{below} rows below"] if below else []
    return f"… {' and '.join(parts)} not shown"

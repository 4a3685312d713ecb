"""What each page of the viewer is given: lists, one rollout, two groups side by side."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from recipe.analysis.reading import WORDS
from recipe.analysis.viewer.cards import Card, make_cards
from recipe.analysis.viewer.index import RunIndex, State
from recipe.analysis.viewer.query import (
    GROUPS_PER_PAGE,
    ROWS_PER_PAGE,
    Question,
    match_expression,
)
from recipe.analysis.viewer.rows import Source

MOST_OF_A_GROUP = 16
CHOICES = ("outcome", "verdict", "refined_verdict")


@dataclass(frozen=True)
class Listing:
    """One page of a list: `groups` hold rows, a single group if the list is not grouped. `total`
    counts rollouts, `pages` pages. `ce_title` names the reading of the CE if the run has one alone.
    """

    groups: tuple[tuple[sqlite3.Row, ...], ...]
    total: int
    pages: int
    choices: dict[str, list[str]]
    state: State
    ignored: tuple[str, ...]
    problems: tuple[str, ...]
    ce_title: str


def list_page(index: RunIndex, question: Question) -> Listing:
    """The page of the list that the question asks for."""
    where, values = question.where()
    (row,) = index.query(f"SELECT count(*) AS n FROM episodes WHERE {where}", values)
    if question.is_grouped:
        groups, count = _groups(index, question, where, values)
        pages = -(-count // GROUPS_PER_PAGE)
    else:
        rows = index.query(
            f"SELECT * FROM episodes WHERE {where} ORDER BY {question.order()} LIMIT ? OFFSET ?",
            [*values, ROWS_PER_PAGE, question.page * ROWS_PER_PAGE],
        )
        groups, pages = ((tuple(rows),) if rows else ()), -(-row["n"] // ROWS_PER_PAGE)
    return Listing(
        groups=groups,
        total=row["n"],
        pages=pages,
        choices={key: _distinct(index, key) for key in CHOICES},
        state=index.state(),
        ignored=tuple(match_expression(question.q)[1]),
        problems=tuple(index.problems()),
        ce_title=_ce_title(index),
    )


def _ce_title(index: RunIndex) -> str:
    readings = _distinct(index, "reading")
    return f"CE, {WORDS[readings[0]]}" if len(readings) == 1 else "CE"


def _groups(
    index: RunIndex, question: Question, where: str, values: Sequence[Any]
) -> tuple[tuple[tuple[sqlite3.Row, ...], ...], int]:
    """The prompts of a page, each with those of its rollouts that fit, and the count of prompts."""
    grouped = f"SELECT step, uid FROM episodes WHERE {where} GROUP BY step, uid"
    (row,) = index.query(f"SELECT count(*) AS n FROM ({grouped})", values)
    keys = index.query(
        f"{grouped} ORDER BY step, uid LIMIT ? OFFSET ?",
        [*values, GROUPS_PER_PAGE, question.page * GROUPS_PER_PAGE],
    )
    if not keys:
        return (), row["n"]
    first, last = keys[0], keys[-1]
    rows = index.query(
        f"SELECT * FROM episodes WHERE (step, uid) BETWEEN (?, ?) AND (?, ?) AND {where} "
        "ORDER BY step, uid, id",
        [first["step"], first["uid"], last["step"], last["uid"], *values],
    )
    found = groupby(rows, key=lambda row: (row["step"], row["uid"]))
    return tuple(tuple(members) for _, members in found), row["n"]


def _distinct(index: RunIndex, key: str) -> list[str]:
    rows = index.query(f"SELECT DISTINCT {key} AS value FROM episodes ORDER BY value LIMIT 100")
    return [row["value"] for row in rows if row["value"]]


@dataclass(frozen=True)
class EpisodePage:
    """One rollout, with its neighbours in the list that the reader came from."""

    row: sqlite3.Row
    card: Card
    before: sqlite3.Row | None
    after: sqlite3.Row | None
    group: tuple[sqlite3.Row, ...]
    steps: tuple[int, ...]


def find_row(index: RunIndex, source: Source, offset: int) -> sqlite3.Row | None:
    """The row of a place in a file."""
    rows = index.query("SELECT * FROM episodes WHERE source = ? AND offset = ?", (source, offset))
    return rows[0] if rows else None


def episode_page(
    index: RunIndex, row: sqlite3.Row, question: Question, colour: str, most_tokens: int
) -> EpisodePage:
    """Read one rollout and what is around it."""
    group = index.query(
        "SELECT * FROM episodes WHERE step = ? AND uid = ? ORDER BY id LIMIT 64",
        (row["step"], row["uid"]),
    )
    return EpisodePage(
        row=row,
        card=make_cards([_read(index, row)], colour, most_tokens)[0],
        before=neighbour(index, row, question, forward=False),
        after=neighbour(index, row, question, forward=True),
        group=tuple(group),
        steps=steps_of(index, row["problem"]),
    )


def neighbour(
    index: RunIndex, row: sqlite3.Row, question: Question, forward: bool
) -> sqlite3.Row | None:
    """The next or the previous rollout in the list's order."""
    where, values = question.where()
    if question.is_grouped:
        sign, way = (">", "ASC") if forward else ("<", "DESC")
        beyond, at = f"(step, uid, id) {sign} (?, ?, ?)", [row["step"], row["uid"], row["id"]]
        order = f"step {way}, uid {way}, id {way}"
    else:
        beyond, at, order = _beyond(question, row, forward)
    rows = index.query(
        f"SELECT * FROM episodes WHERE {where} AND {beyond} ORDER BY {order} LIMIT 1",
        [*values, *at],
    )
    return rows[0] if rows else None


def _beyond(question: Question, row: sqlite3.Row, forward: bool) -> tuple[str, list[Any], str]:
    """What comes after a row in a sorted list, or before it, with that order; rows without the
    value stand at the end.
    """
    key, value, number = question.sort, row[question.sort], row["id"]
    if forward:
        sign = ">" if question.up else "<"
        order = question.order()
        if value is None:
            return f"{key} IS NULL AND id > ?", [number], order
        beyond = f"({key} {sign} ? OR {key} IS NULL OR ({key} = ? AND id > ?))"
        return beyond, [value, value, number], order
    sign, way = ("<", "DESC") if question.up else (">", "ASC")
    order = f"{key} {way} NULLS FIRST, id DESC"
    if value is None:
        return f"({key} IS NOT NULL OR id < ?)", [number], order
    return f"({key} {sign} ? OR ({key} = ? AND id < ?))", [value, value, number], order


def steps_of(index: RunIndex, problem: str) -> tuple[int, ...]:
    """The steps at which a problem was asked."""
    rows = index.query(
        "SELECT DISTINCT step FROM episodes WHERE problem = ? ORDER BY step", (problem,)
    )
    return tuple(row["step"] for row in rows)


@dataclass(frozen=True)
class Column:
    """One side of a comparison: a problem's rollouts at a step, with their cards. `step` is the
    nearest to the one asked for; -1 if the run never met the problem.
    """

    run: str
    step: int
    steps: tuple[int, ...]
    entries: tuple[tuple[sqlite3.Row, Card], ...]
    omitted: int


@dataclass(frozen=True)
class Side:
    """What one side of a comparison was asked for."""

    run: str
    index: RunIndex
    step: int


def compare_page(
    sides: Sequence[Side], problem: str, colour: str, most_tokens: int
) -> tuple[Column, ...]:
    """A problem at a step of a run, beside another step or run, all coloured on one scale."""
    found = [_rows_of(side, problem) for side in sides]
    shown = [rows[:MOST_OF_A_GROUP] for _, rows in found]
    records = [
        _read(side.index, row) for side, rows in zip(sides, shown, strict=True) for row in rows
    ]
    cards = iter(make_cards(records, colour, most_tokens))
    return tuple(
        Column(
            run=side.run,
            step=rows[0]["step"] if rows else -1,
            steps=steps,
            entries=tuple((row, next(cards)) for row in rows[:MOST_OF_A_GROUP]),
            omitted=max(0, len(rows) - MOST_OF_A_GROUP),
        )
        for side, (steps, rows) in zip(sides, found, strict=True)
    )


def _rows_of(side: Side, problem: str) -> tuple[tuple[int, ...], list[sqlite3.Row]]:
    """The steps at which a run met the problem, and its rollouts at the nearest of them."""
    steps = steps_of(side.index, problem)
    if not steps:
        return (), []
    nearest = min(steps, key=lambda other: (abs(other - side.step), other))
    rows = side.index.query(
        "SELECT * FROM episodes WHERE problem = ? AND step = ? ORDER BY uid, id",
        (problem, nearest),
    )
    return steps, rows


def _read(index: RunIndex, row: sqlite3.Row) -> dict[str, Any]:
    return index.read(Source(row["source"]), row["offset"])

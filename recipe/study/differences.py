"""The figure of a study's comparisons: each pair's difference as a dot, its mean and interval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recipe.analysis.output import write_csv
from recipe.analysis.style import LIGHT, THEMES, Theme, save, themed
from recipe.study.results import Compared

HEADER = ("family", "first", "second", "seed", "difference", "mean", "low", "high", "p", "shown")
WIDTH_IN = 7.4
ROW_IN = 0.36
MARGINS_IN = 1.35


def write_differences(compared: Sequence[Compared], title: str, out: Path) -> list[Path]:
    """`differences.png` (light and dark), `.pdf` and `.csv`; comparisons without a pair are left
    out, and nothing is written without any.
    """
    shown = [one for one in compared if one.result is not None]
    if not shown:
        return []
    paths = []
    for theme in THEMES:
        formats = ("png", "pdf") if theme is LIGHT else ("png",)
        stem = out / f"differences{theme.suffix}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths += save(draw_differences(shown, title, theme), stem, formats)
    rows = [row for one in shown for row in _rows(one)]
    return [*paths, write_csv(out / "differences.csv", HEADER, rows)]


def draw_differences(compared: Sequence[Compared], title: str, theme: Theme) -> Figure:
    """One row a comparison, in the order of the file, with a gap between families."""
    with themed(theme):
        places = _places(compared)
        height_in = MARGINS_IN + ROW_IN * (1 - places[-1])
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(f"{title}: differences between arms, paired by seed")
        axes.axvline(0, color=theme.muted, linewidth=0.9)
        for place, one in zip(places, compared, strict=True):
            _draw_row(axes, place, one, theme)
        axes.set_yticks(places, [one.label for one in compared])
        axes.grid(visible=False, axis="y")
        axes.set_ylim(places[-1] - 0.7, 0.7)
        axes.margins(x=0.05)
        axes.set_xlabel("first minus second arm; dots: one seed each; bar: mean, 95 % interval")
        figure.legend(handles=_handles(theme), loc="outside lower left", ncols=2, fontsize=8)
    return figure


def _places(compared: Sequence[Compared]) -> list[float]:
    """The height of each row, from 0 downwards."""
    places = [0.0]
    for before, one in pairwise(compared):
        places.append(places[-1] - (1.0 if one.family == before.family else 1.5))
    return places


def _draw_row(axes: Axes, place: float, one: Compared, theme: Theme) -> None:
    result = one.result
    assert result is not None
    colour = _colour(one.claimed, theme)
    dots = [place - 0.26] * len(result.differences)
    axes.plot(result.differences, dots, "o", color=colour, alpha=0.5, ms=4, mew=0)
    if result.p_value is not None:
        axes.plot([result.low, result.high], [place, place], color=colour, linewidth=2)
        text = f"p = {result.p_value:.2g}"
        where = axes.get_yaxis_transform()
        axes.text(1.01, place, text, transform=where, va="center", fontsize=8, color=colour)
    axes.plot(result.mean, place, "o" if one.claimed else "s", color=colour, ms=6.5)


def _handles(theme: Theme) -> list[Line2D]:
    words = {True: "shown at the level of its family", False: "not shown"}
    return [
        Line2D([], [], color=_colour(claimed, theme), marker="o" if claimed else "s", label=text)
        for claimed, text in words.items()
    ]


def _colour(claimed: bool, theme: Theme) -> str:
    return theme.arms["dynamic_sft"] if claimed else theme.muted


def _rows(one: Compared) -> list[tuple[object, ...]]:
    result = one.result
    assert result is not None
    tail = (result.mean, result.low, result.high, result.p_value, one.claimed)
    pairs = zip(result.seeds, result.differences, strict=True)
    return [(one.family, one.first, one.second, seed, value, *tail) for seed, value in pairs]

"""A figure as data: its plots, legend, words and numbers.

A page shows the plots one by one, each as wide as a phone; print shows them in one grid. Both are
drawn by the same functions.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from recipe.analysis.output import write_csv
from recipe.analysis.style import LIGHT, README_WIDTH_IN, Theme, save, themed

MOST_COLUMNS = 3
ROW_HEIGHT_IN = 2.35
PLOT_SIZE_IN = (4.1, 2.8)
LEGEND_COLUMNS = 28
NOTE_COLUMNS = 42
MOST_KEYS_IN_CELL = 8
LINE_HEIGHT_IN = 0.22
LABEL_LINE_IN = 0.14
LABEL_GAP_IN = 0.1


@dataclass(frozen=True)
class Plot:
    """One pair of axes. `alt` says in words what it shows, for those who cannot see it; `height_in`
    is what it needs on a page.
    """

    title: str
    alt: str
    draw: Callable[[Axes, Theme], None]
    height_in: float = PLOT_SIZE_IN[1]


@dataclass(frozen=True)
class Key:
    """A line of the legend: `colour` picks from a theme; an empty `marker` stands for an area."""

    label: str
    colour: Callable[[Theme], str]
    marker: str = ""


def part_colour(index: int) -> Callable[[Theme], str]:
    """Picks the colour of a part of a whole."""
    return lambda theme: theme.parts[index]


@dataclass(frozen=True)
class Sheet:
    """One figure. `name` is that of its files; `notes` are short lines that belong beside it;
    `header` and `rows` are its numbers.
    """

    name: str
    title: str
    caption: str
    plots: tuple[Plot, ...]
    keys: tuple[Key, ...]
    notes: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def draw_plot(plot: Plot, theme: Theme) -> Figure:
    """One plot alone, without the legend."""
    with themed(theme):
        figure = Figure(figsize=(PLOT_SIZE_IN[0], plot.height_in), layout="constrained")
        plot.draw(figure.add_subplot(), theme)
    return figure


def draw_sheet(sheet: Sheet, theme: Theme) -> Figure:
    """All plots in a grid, with legend and notes in a cell of their own, or in a row below where
    the legend is too long for a cell or no cell is left.
    """
    below = len(sheet.keys) > MOST_KEYS_IN_CELL or len(sheet.plots) % MOST_COLUMNS == 0
    cells = len(sheet.plots) + (not below)
    columns = min(MOST_COLUMNS, cells)
    rows = -(-cells // columns)
    heights_in = [_row_height_in(sheet.plots[row * columns :][:columns]) for row in range(rows)]
    if below:
        heights_in.append(_legend_height_in(sheet))
    with themed(theme):
        figure = Figure(
            figsize=(README_WIDTH_IN * columns / MOST_COLUMNS, sum(heights_in)),
            layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07),
        )
        grid = figure.add_gridspec(len(heights_in), columns, height_ratios=heights_in)
        for index, plot in enumerate(sheet.plots):
            axes = figure.add_subplot(grid[index // columns, index % columns])
            plot.draw(axes, theme)
        place = grid[rows, :] if below else grid[rows - 1, columns - 1]
        _draw_legend(figure.add_subplot(place), sheet, theme, columns if below else 1)
    return figure


def _row_height_in(plots: Sequence[Plot]) -> float:
    """A row in print is lower than a plot on a page, by the same measure for all."""
    tallest = max((plot.height_in for plot in plots), default=PLOT_SIZE_IN[1])
    return ROW_HEIGHT_IN + tallest - PLOT_SIZE_IN[1]


def height_for(labels: Sequence[str]) -> float:
    """The height in inches of a plot that has these labels, one under the other, on its axis."""
    lines = sum(label.count("\n") + 1 for label in labels)
    return max(PLOT_SIZE_IN[1], 1.0 + LABEL_GAP_IN * len(labels) + LABEL_LINE_IN * lines)


def _legend_height_in(sheet: Sheet) -> float:
    """The height of a legend of `MOST_COLUMNS` columns with the notes under it."""
    notes = sum(note.count("\n") + 1 for note in sheet.notes)
    return LINE_HEIGHT_IN * (-(-len(sheet.keys) // MOST_COLUMNS) + notes + 1)


def _draw_legend(axes: Axes, sheet: Sheet, theme: Theme, columns: int) -> None:
    axes.set_axis_off()
    if sheet.keys:
        axes.legend(
            handles=[_handle(key, theme) for key in sheet.keys],
            loc="upper left",
            bbox_to_anchor=(0, 1.1),
            borderaxespad=0,
            fontsize=9,
            ncols=columns,
        )
    axes.text(0, -0.1, _wrap(sheet.notes, columns), va="bottom", fontsize=8, color=theme.muted)


def _wrap(notes: Sequence[str], columns: int) -> str:
    """The notes in lines that fit a legend as wide as so many cells."""
    lines = [line for note in notes for line in note.split("\n")]
    return "\n".join(textwrap.fill(line, NOTE_COLUMNS * columns) for line in lines)


def _handle(key: Key, theme: Theme) -> Line2D | Patch:
    colour = key.colour(theme)
    if not key.marker:
        return Patch(color=colour, label=textwrap.fill(key.label, LEGEND_COLUMNS))
    return Line2D(
        [],
        [],
        color=colour,
        marker=key.marker,
        linewidth=1.6,
        markersize=5,
        label=textwrap.fill(key.label, LEGEND_COLUMNS),
    )


def write_numbers(sheet: Sheet, out: Path) -> Path:
    """The numbers behind the figure."""
    return write_csv(out / f"{sheet.name}.csv", sheet.header, sheet.rows)


def write_pictures(sheet: Sheet, out: Path, themes: Sequence[Theme] = (LIGHT,)) -> list[Path]:
    """A PNG for each theme, at a README's width and twice its density; a PDF of the light one."""
    paths = []
    for theme in themes:
        formats = ("png", "pdf") if theme is LIGHT else ("png",)
        paths += save(draw_sheet(sheet, theme), out / f"{sheet.name}{theme.suffix}", formats)
    return paths

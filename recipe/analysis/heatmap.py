"""Token cross entropy over one refined episode: a beside a', tokens of a' coloured by their CE.

Which episode: see `choice.choose_episode`. The caption gives the averages over all accepted
episodes of the run beside those of the chosen one, since a clear example is not a typical one.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from recipe.analysis.choice import Choice, caption
from recipe.analysis.episodes import Episode
from recipe.analysis.names import label_of
from recipe.analysis.output import write_csv
from recipe.analysis.reading import WORDS
from recipe.analysis.sides import (
    Side,
    displayable,
    insertion_points,
    marked_spans,
    omission,
    sides_of,
)
from recipe.analysis.style import THEMES, Theme, save, themed
from recipe.analysis.token_layout import Cell

MONOSPACE = "DejaVu Sans Mono"
FONT_SIZE_PT = 8.5
CHARACTER_IN = 0.602 * FONT_SIZE_PT / 72
LINE_IN = 1.45 * FONT_SIZE_PT / 72
MIN_COLUMNS = 52
GUTTER_IN, MARGIN_IN = 0.36, 0.15
HEADER_LINE_IN, FOOTER_IN = 0.185, 1.3
PROMPT_CHARACTER_IN = 0.079
MAX_PROMPT_LINES = 3
MAX_CE_SHOWN_NATS = 10.0
VISIBLE_HEAT = 0.1
"""Share of the colour scale from which a background stands out."""
BASELINE = 0.72
"""Where the letters of a row stand, as a share of its height from its top."""


@dataclass(frozen=True)
class Page:
    """The picture's measures and colours; a text is `columns` characters wide and `rows` high."""

    columns: int
    rows: int
    header: tuple[str, ...]
    theme: Theme
    colours: Colormap
    norm: Normalize

    @property
    def text_width_in(self) -> float:
        return self.columns * CHARACTER_IN

    @property
    def width_in(self) -> float:
        return 2 * (self.text_width_in + GUTTER_IN + MARGIN_IN) + MARGIN_IN

    @property
    def height_in(self) -> float:
        return HEADER_LINE_IN * (len(self.header) + 2.4) + self.rows * LINE_IN + FOOTER_IN

    def left_in(self, index: int) -> float:
        """Where the text of the first (0) or second (1) side begins."""
        return MARGIN_IN + GUTTER_IN + index * (self.text_width_in + GUTTER_IN + MARGIN_IN)

    def add_axes(self, figure: Figure, box_in: tuple[float, float, float, float]) -> Axes:
        """Axes at (left, bottom, width, height) in inches."""
        left, bottom, width, height = box_in
        x, y = self.width_in, self.height_in
        return figure.add_axes((left / x, bottom / y, width / x, height / y))


def draw_heatmap(choice: Choice, theme: Theme) -> Figure:
    """The picture of one episode; `ValueError` if its file changed since it was loaded."""
    episode = choice.read()
    sides = sides_of(episode)
    page = _lay_out_page(choice, episode, sides, theme)
    with themed(theme):
        figure = Figure(figsize=(page.width_in, page.height_in))
        _draw_header(figure, page)
        for index, side in enumerate(sides):
            box_in = (page.left_in(index), FOOTER_IN, page.text_width_in, page.rows * LINE_IN)
            _draw_side(page.add_axes(figure, box_in), side, page)
        _draw_colour_bar(figure, page, episode)
        _draw_key(figure, page)
        x, y = page.left_in(0) / page.width_in, 0.16 / page.height_in
        figure.text(x, y, caption(choice), fontsize=7.5, color=theme.muted)
    return figure


def _lay_out_page(choice: Choice, episode: Episode, sides: Sequence[Side], theme: Theme) -> Page:
    columns = max(MIN_COLUMNS, *(side.layout.columns + 1 for side in sides))
    width_in = 2 * columns * CHARACTER_IN
    return Page(
        columns=columns,
        rows=max(len(side.rows) + (len(side.rows) < side.layout.rows) for side in sides),
        header=_header(choice, episode, int(width_in / PROMPT_CHARACTER_IN)),
        theme=theme,
        colours=LinearSegmentedColormap.from_list("heat", theme.heat),
        norm=Normalize(0.0, heat_limit(asked_ce(episode))),
    )


def asked_ce(episode: Episode) -> list[float]:
    """The CE of the tokens that the policy was asked for, in nats."""
    return [value for value in episode.ce or () if value is not None]


def heat_limit(ce: Sequence[float]) -> float:
    """The top of the colour scale in nats: the largest CE, but at least 1 and at most 10."""
    return min(MAX_CE_SHOWN_NATS, max(1.0, *ce)) if ce else 1.0


def _header(choice: Choice, episode: Episode, max_characters: int) -> tuple[str, ...]:
    """The title and, under it, the problem."""
    run = choice.run
    seed = "" if run.seed is None else f", seed {run.seed}"
    where = f"{label_of(run.arm)}{seed}, step {episode.step}, problem {episode.problem_id}"
    prompt = textwrap.wrap(
        displayable(" ".join(episode.prompt.split())),
        max_characters,
        max_lines=MAX_PROMPT_LINES,
        placeholder=" …",
    )
    return (f"One refined episode: {where}", *prompt)


def _draw_header(figure: Figure, page: Page) -> None:
    x = MARGIN_IN / page.width_in
    for number, line in enumerate(page.header):
        y = 1 - HEADER_LINE_IN * (number + 0.6 + 0.2 * (number > 0)) / page.height_in
        if number == 0:
            figure.text(x, y, line, va="center", fontsize=10.5, fontweight="bold")
        else:
            figure.text(x, y, line, va="center", fontsize=8.5, color=page.theme.muted)


def _draw_side(axes: Axes, side: Side, page: Page) -> None:
    """One text; a unit of x is a character, a unit of y a line, downwards."""
    theme, top = page.theme, side.rows.start
    axes.set(xlim=(0, page.columns), ylim=(page.rows, 0))
    axes.set_axis_off()
    axes.text(0, -0.75, side.title, fontsize=9, fontweight="bold", va="center")
    for cell in side.layout.cells:
        if cell.row in side.rows:
            _draw_cell(axes, cell, side, page)
    for row in side.rows:
        number = side.layout.line_numbers[row]
        mark = "↪" if number is None else str(number)
        style: dict[str, Any] = {
            "family": MONOSPACE,
            "fontsize": 7,
            "color": theme.muted,
            "ha": "right",
        }
        axes.text(-1, row - top + BASELINE, mark, **style)
    for row, start, end in marked_spans(side):
        _draw_box(axes, row - top, (start, end), side.ce is not None, theme)
    for row, column in insertion_points(side):
        _draw_wedge(axes, row - top, column, theme)
    if len(side.rows) < side.layout.rows:
        y = len(side.rows) + BASELINE
        axes.text(0, y, omission(side), fontsize=8, color=theme.muted, style="italic")


def _draw_cell(axes: Axes, cell: Cell, side: Side, page: Page) -> None:
    """The background by CE, and the text; the sign for a line break only if CE colours it."""
    y = cell.row - side.rows.start
    ce = None if side.ce is None else side.ce[cell.token]
    heat = 0.0 if ce is None else float(page.norm(ce))
    if cell.breaks and heat < VISIBLE_HEAT:
        return
    background = page.colours(heat)
    if ce is not None:
        size = (len(cell.text), 1)
        axes.add_patch(Rectangle((cell.column, y), *size, facecolor=background, linewidth=0))
    ink = readable_ink(background[:3]) if heat >= VISIBLE_HEAT else page.theme.ink
    style: dict[str, Any] = {
        "family": MONOSPACE,
        "fontsize": FONT_SIZE_PT,
        "color": ink,
        "zorder": 4,
    }
    axes.text(cell.column, y + BASELINE, cell.text, **style)


def readable_ink(background: tuple[float, float, float]) -> str:
    """Black or white, whichever has the higher contrast on `background` (sRGB in 0 to 1).

    Relative luminance of WCAG 2; the two contrasts are equal at 0.179.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#111111" if luminance > 0.179 else "#f4f4f4"


def _draw_box(
    axes: Axes, row: float, columns: tuple[float, float], written: bool, theme: Theme
) -> None:
    """A solid box around what a' writes anew, a dashed and shaded one around what it drops."""
    start, end = columns
    box = Rectangle(
        (start - 0.06, row + 0.04),
        end - start + 0.12,
        0.92,
        facecolor="none" if written else theme.grid,
        edgecolor=theme.written if written else theme.dropped,
        linewidth=1.4 if written else 0.9,
        linestyle="-" if written else (0, (2, 1.5)),
        zorder=3,
    )
    axes.add_patch(box)


def _draw_wedge(axes: Axes, row: float, column: float, theme: Theme) -> None:
    """A caret below the point in a where a' inserts."""
    corners = [(column, row + 0.72), (column - 0.45, row + 1.08), (column + 0.45, row + 1.08)]
    axes.add_patch(Polygon(corners, facecolor=theme.written, linewidth=0, zorder=5, clip_on=False))


def _draw_colour_bar(figure: Figure, page: Page, episode: Episode) -> None:
    """The scale; pointed at its end if a token's CE lies beyond it."""
    exceeded = max(asked_ce(episode), default=0.0) > MAX_CE_SHOWN_NATS
    bar = page.add_axes(figure, (page.left_in(1), 0.8, page.text_width_in - 0.15, 0.13))
    figure.colorbar(
        ScalarMappable(page.norm, page.colours),
        cax=bar,
        orientation="horizontal",
        extend="max" if exceeded else "neither",
    )
    bar.grid(visible=False)
    limit = f"; {page.norm.vmax:g} stands for all above it" if exceeded else ""
    words = f"CE of the policy on a′, {WORDS[episode.reading]} (nats per token{limit})"
    bar.set_xlabel(words, fontsize=8)
    bar.tick_params(labelsize=7.5, length=2)


def _draw_key(figure: Figure, page: Page) -> None:
    """What the marks mean, drawn with the marks themselves."""
    key = page.add_axes(figure, (page.left_in(0), 0.38, page.text_width_in, 3.6 * LINE_IN))
    key.set(xlim=(0, page.columns), ylim=(3.6, 0))
    key.set_axis_off()
    _draw_box(key, 0, (0.2, 4), False, page.theme)
    _draw_box(key, 1.2, (0.2, 4), True, page.theme)
    _draw_wedge(key, 2.1, 2.1, page.theme)
    meanings = ("in a, not in a′", "new in a′ (the rest is copied)", "a′ inserts text here")
    for row, meaning in enumerate(meanings):
        key.text(5, row * 1.2 + 0.5, meaning, va="center", fontsize=8)


def write_heatmap_csv(choice: Choice, path: Path) -> Path:
    """The numbers behind the picture: a line per token of a and a', tokens as Python literals."""
    header = ("text", "position", "token", "edited", "ce_nats")
    return write_csv(path, header, _token_rows(choice.read()))


def _token_rows(episode: Episode) -> Iterator[tuple[object, ...]]:
    texts = (("a", episode.answer_tokens), ("a_refined", episode.refined_tokens))
    for (text, tokens), side in zip(texts, sides_of(episode), strict=True):
        for position, token in enumerate(tokens):
            ce = None if side.ce is None else side.ce[position]
            edited = int(side.marked[position])
            yield (text, position, repr(token), edited, "" if ce is None else ce)


def write_heatmap(choice: Choice, out: Path, name: str = "heatmap") -> list[Path]:
    """`heatmap.png` (for a light page), `heatmap-dark.png`, `heatmap.pdf` and `heatmap.csv`."""
    paths = []
    for theme in THEMES:
        formats = ("png", "pdf") if theme.suffix == "" else ("png",)
        paths += save(draw_heatmap(choice, theme), out / f"{name}{theme.suffix}", formats)
    return [*paths, write_heatmap_csv(choice, out / f"{name}.csv")]

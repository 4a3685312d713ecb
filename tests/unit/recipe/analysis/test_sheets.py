"""One figure, two places: in print with its legend, in a page as SVG that follows the theme."""

from pathlib import Path

import pytest
from matplotlib.axes import Axes

from recipe.analysis.sheets import Key, Plot, Sheet, draw_plot, draw_sheet, write_pictures
from recipe.analysis.style import DARK, LIGHT, MARKERS, Theme
from recipe.analysis.svg import PAGE, colours_of, css_colour, inline_svg, marker_svg


def draw(axes: Axes, theme: Theme) -> None:
    axes.plot([0, 1], [0, 1], color=theme.arms["none"])
    axes.set_title('a < b & "c"')


def sheet(keys: int, plots: int = 1) -> Sheet:
    key = Key("none", lambda theme: theme.arms["none"], "X")
    plot = Plot("p", 'alt < & "quoted"', draw)
    return Sheet("s", "S", "", (plot,) * plots, (key,) * keys, ("a note",), ("x",), ((1,),))


def test_both_themes_have_a_value_for_every_colour() -> None:
    assert colours_of(LIGHT).keys() == colours_of(DARK).keys() == colours_of(PAGE).keys()
    assert len(set(colours_of(PAGE).values())) == len(colours_of(PAGE))


def test_only_place_holders_become_variables() -> None:
    assert css_colour(PAGE.arms["dynamic_sft"]) == "var(--arm-dynamic_sft)"
    assert css_colour("#123456") == "#123456"


def test_an_inline_figure_is_named_scaled_and_free_of_fixed_colours() -> None:
    svg = inline_svg(draw_plot(sheet(1).plots[0], PAGE), "fig", 'alt < & "quoted"')
    assert svg.startswith('<svg viewBox="0 0 ') and svg.endswith("</svg>")
    assert 'aria-label="alt &lt; &amp; &quot;quoted&quot;"' in svg
    assert "stroke: var(--arm-none)" in svg and "#fe00" not in svg
    assert "a &lt; b &amp;" in svg
    assert 'id="fig-' in svg and "<style" not in svg and "<metadata" not in svg


@pytest.mark.parametrize("marker", sorted({*MARKERS.values(), "h", "*", "d", ""}))
def test_every_marker_has_a_key(marker: str) -> None:
    key = marker_svg(marker, PAGE.arms["none"])
    assert "var(--arm-none)" in key and ("<rect" in key) == (marker == "")


@pytest.mark.parametrize(("keys", "plots", "cells"), [(2, 1, 2), (9, 1, 2), (9, 4, 5)])
def test_a_long_legend_gets_a_row_of_its_own(keys: int, plots: int, cells: int) -> None:
    figure = draw_sheet(sheet(keys, plots), LIGHT)
    assert len(figure.axes) == cells
    place = figure.axes[-1].get_subplotspec()
    assert place is not None and len(place.colspan) == (min(3, plots) if keys > 8 else 1)


def test_pictures_are_a_png_and_a_pdf(tmp_path: Path) -> None:
    png, pdf = write_pictures(sheet(1), tmp_path)
    assert png.read_bytes()[:4] == b"\x89PNG" and pdf.read_bytes()[:4] == b"%PDF"

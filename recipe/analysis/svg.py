"""Figures as SVG inside a page: every colour is a CSS variable, so that a figure follows the page's
theme, light or dark, without being drawn twice.

A figure is drawn in `PAGE`, a theme whose colours are place holders; `inline_svg` then puts
variables in their place, and `theme_variables` gives the variables their values in a real theme.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline

from recipe.analysis.style import LIGHT, Theme

PLACE_HOLDER = re.compile(r"#fe00[0-9a-f]{2}")
STYLE = re.compile(r'style="[^"]*"')
UNWANTED = re.compile(
    r"^.*?(?=<svg\b)|<metadata>.*?</metadata>\s*|<!--.*?-->\s*|<style\b.*?</style>\s*", re.DOTALL
)
OPENING = re.compile(r"<svg\b[^>]*>")
VIEW_BOX = re.compile(r'viewBox="[^"]*"')
OWN_ID = re.compile(r'(\bid="|url\(#|href="#)')


def colours_of(theme: Theme) -> dict[str, str]:
    """Every colour of a theme that a drawing may use, by the name of its variable."""
    return {
        "background": theme.background,
        "ink": theme.ink,
        "muted": theme.muted,
        "grid": theme.grid,
        "written": theme.written,
        "dropped": theme.dropped,
        **{f"arm-{name}": colour for name, colour in theme.arms.items()},
        **{f"other-{index}": colour for index, colour in enumerate(theme.other_arms)},
        **{f"part-{index}": colour for index, colour in enumerate(theme.parts)},
    }


_HOLDERS = {name: f"#fe00{index:02x}" for index, name in enumerate(colours_of(LIGHT))}
_NAMES = {holder: name for name, holder in _HOLDERS.items()}

PAGE: Theme = replace(
    LIGHT,
    background=_HOLDERS["background"],
    ink=_HOLDERS["ink"],
    muted=_HOLDERS["muted"],
    grid=_HOLDERS["grid"],
    written=_HOLDERS["written"],
    dropped=_HOLDERS["dropped"],
    arms={name: _HOLDERS[f"arm-{name}"] for name in LIGHT.arms},
    other_arms=tuple(_HOLDERS[f"other-{index}"] for index in range(len(LIGHT.other_arms))),
    parts=tuple(_HOLDERS[f"part-{index}"] for index in range(len(LIGHT.parts))),
)
"""The theme to draw in for a page."""


def theme_variables(theme: Theme) -> Mapping[str, str]:
    """CSS variables, without their two hyphens, and their values."""
    return colours_of(theme)


def css_colour(holder: str) -> str:
    """The CSS value for a colour of `PAGE`; other colours stay as they are."""
    name = _NAMES.get(to_hex(holder))
    return holder if name is None else f"var(--{name})"


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an `svg` element as wide as its place, with `alt` as its accessible name.

    `name` must differ between the figures of a page: it makes their ids distinct. Text stays text,
    in the page's font, so that it can be selected and searched.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawn = StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = UNWANTED.sub("", drawn.getvalue())
    svg = STYLE.sub(lambda match: PLACE_HOLDER.sub(_variable, match.group()), svg)
    svg = OWN_ID.sub(rf"\g<1>{name}-", svg)
    view_box = VIEW_BOX.search(svg)
    label = alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    opening = f'<svg {view_box.group() if view_box else ""} role="img" aria-label="{label}">'
    return OPENING.sub(lambda _: opening, svg, count=1).strip()


def _variable(match: re.Match[str]) -> str:
    return css_colour(match.group())


def marker_svg(marker: str, colour: str) -> str:
    """A legend's key: a line with its marker, or a square where `marker` is empty; `colour` is a
    colour of `PAGE`.
    """
    value = css_colour(colour)
    if not marker:
        body = f'<rect x="4" y="1" width="16" height="10" rx="2" style="fill:{value}"/>'
    else:
        body = (
            f'<path d="M0 6H24" style="stroke:{value};stroke-width:2"/>'
            f'<path d="{_outline(marker)}" style="fill:{value}"/>'
        )
    return f'<svg class="key" viewBox="0 0 24 12" aria-hidden="true">{body}</svg>'


def _outline(marker: str) -> str:
    """A marker of matplotlib as path data, 8 units wide around (12, 6)."""
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    words = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
    parts = []
    for vertices, code in path.iter_segments(curves=True, simplify=False):
        if code == Outline.CLOSEPOLY:
            parts.append("Z")
            continue
        points = [f"{12 + 8 * x:.2f} {6 - 8 * y:.2f}" for x, y in vertices.reshape(-1, 2).tolist()]
        parts.append(words[code] + " ".join(points))
    return "".join(parts)

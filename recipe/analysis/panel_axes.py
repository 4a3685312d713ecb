"""How one panel of curves is drawn: lines, bands, limits, and what stands beside the title."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recipe.analysis.panels import Curve, Panel, smooth, smoothing_window
from recipe.analysis.style import ArmStyle, Theme

LOG_SPREAD = 20.0
"""A panel that may be logarithmic becomes so where its largest value exceeds its median by this
factor.
"""
MARKERS_PER_LINE = 8
NOTE_CHARACTERS = 58


def draw_panel(
    axes: Axes, panel: Panel, curves: Sequence[Curve], styles: Mapping[str, ArmStyle], theme: Theme
) -> None:
    """One panel with its labels, limits, and the arms that did not log its metric named below the
    title.
    """
    axes.set_title(panel.title, pad=16)
    axes.set_xlabel("training step")
    axes.set_ylabel(panel.axis_label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if not curves:
        axes.set(xticks=[], yticks=[])
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": theme.muted}
        axes.text(0.5, 0.5, "not logged\nin these runs", transform=axes.transAxes, **style)
        return
    for curve in curves:
        _draw_curve(axes, curve, styles[curve.arm])
    logarithmic = panel.may_be_log and _is_wide(curves)
    _set_limits(axes, panel, curves, logarithmic)
    if not logarithmic:
        axes.yaxis.set_major_formatter(FuncFormatter(_number))
    drawn = {curve.arm for curve in curves}
    absent = [styles[arm].label for arm in styles if arm not in drawn]
    note = [_name_absent(absent)] if absent else []
    note += ["symmetric log scale"] if logarithmic else []
    axes.annotate(
        "; ".join(note) or textwrap.shorten(curves[0].metric, NOTE_CHARACTERS, placeholder="…"),
        (0, 1),
        (0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7.5,
        color=theme.muted,
    )


def _number(value: float, _: object) -> str:
    """A tick's label in full: a factor of ten above the axis would stand where the note is."""
    return f"{value:.4g}".replace("-", "−").replace("e−0", "e−").replace("e+0", "e")


def _name_absent(labels: Sequence[str]) -> str:
    """The arms without a line, or how many where their names would not fit."""
    named = f"not logged: {', '.join(labels)}"
    if len(named) <= NOTE_CHARACTERS:
        return named
    return f"not logged: {len(labels)} of the arms"


def _draw_curve(axes: Axes, curve: Curve, style: ArmStyle) -> None:
    """The band, then the line: solid if all of the arm's seeds have a value, else dotted. A long
    line is smoothed, and stands over itself, thin.
    """
    raw, curve = curve, smooth(curve)
    if smoothing_window(len(raw.steps)) > 1:
        axes.plot(raw.steps, raw.mean, color=style.colour, linewidth=0.5, alpha=0.35)
    if curve.counts.max() > 1:
        axes.fill_between(
            curve.steps, curve.low, curve.high, color=style.colour, alpha=0.18, linewidth=0
        )
    every = max(1, round(len(curve.steps) / MARKERS_PER_LINE))
    complete = curve.counts == curve.counts.max()
    look: dict[str, Any] = {"color": style.colour, "linewidth": 1.6}
    if not complete.all():
        axes.plot(curve.steps, curve.mean, linestyle=":", **look)
    axes.plot(
        curve.steps,
        np.where(complete, curve.mean, np.nan),
        marker=style.marker,
        markersize=4,
        markevery=every,
        markeredgewidth=0,
        **look,
    )


def _is_wide(curves: Sequence[Curve]) -> bool:
    values = np.concatenate([curve.high for curve in curves])
    middle = float(np.median(np.abs(values)))
    return middle > 0 and float(values.max()) > LOG_SPREAD * middle


def _set_limits(axes: Axes, panel: Panel, curves: Sequence[Curve], logarithmic: bool) -> None:
    """Limits around all lines and bands with a margin, within bounds: from zero if that is the
    metric's lower bound.
    """
    low = min(float(curve.low.min()) for curve in curves)
    high = max(float(curve.high.max()) for curve in curves)
    if logarithmic:
        threshold = 10.0 ** (np.floor(np.log10(high)) - 2)
        axes.set_yscale("symlog", linthresh=threshold, linscale=0.6)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(min(low, 0.0), high * 1.6)
        return
    if panel.from_zero:
        low = min(low, 0.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
    bottom = low if panel.from_zero and low == 0.0 else low - margin
    floor, ceiling = panel.bounds
    top = high + margin
    axes.set_ylim(
        max(bottom, floor),
        min(top, ceiling + 0.02 * (ceiling - floor)) if np.isfinite(ceiling) else top,
    )

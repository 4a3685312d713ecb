"""Training curves: every arm in every panel, one picture.

What a line and its band mean is decided in `panels.aggregate`; the picture says it in words.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recipe.analysis.names import cut, label_of
from recipe.analysis.panels import (
    MOST_SEEDS_FOR_MIN_MAX,
    TRAINING_PANELS,
    Curve,
    Panel,
    panel_curves,
    smooth,
    smoothing_window,
)
from recipe.analysis.runs import Run, group_by_arm
from recipe.analysis.sheets import (
    Key,
    Plot,
    Sheet,
    draw_sheet,
    write_numbers,
    write_pictures,
)
from recipe.analysis.style import LIGHT, THEMES, ArmStyle, Theme, arm_styles

LOG_SPREAD = 20.0
"""A panel that may be logarithmic becomes so where its largest value exceeds its median by this
factor.
"""
MARKERS_PER_LINE = 8
NOTE_CHARACTERS = 58
CSV_HEADER = ("panel", "metric", "arm", "label", "step", "mean", "low", "high", "seeds")


def curves_sheet(
    runs: Sequence[Run],
    panels: Sequence[Panel] = TRAINING_PANELS,
    name: str = "curves",
    title: str = "Training curves",
    caption: str = "",
    groups: Mapping[str, Sequence[Run]] | None = None,
    keep_empty: bool = True,
) -> Sheet:
    """All arms, or `groups` where they are given, in all panels; a panel whose metric nobody logged
    says so, or is named in a note where `keep_empty` is off.
    """
    groups = group_by_arm(runs) if groups is None else groups
    drawn = [(panel, panel_curves(groups, panel)) for panel in panels]
    windows = {smoothing_window(len(curve.steps)) for _, found in drawn for curve in found}
    some_absent = any(
        curve.counts.min() < curve.counts.max() for _, found in drawn for curve in found
    )
    empty = [panel.title for panel, found in drawn if not found and not keep_empty]
    notes = _notes(groups, some_absent, max(windows, default=1))
    if empty:
        notes.append(f"Not logged: {', '.join(empty)}")
    span = _step_range(runs)
    return Sheet(
        name=name,
        title=title,
        caption=caption,
        plots=tuple(
            _plot(panel, found, tuple(groups), span)
            for panel, found in drawn
            if found or keep_empty
        ),
        keys=arm_keys(tuple(groups)),
        notes=tuple(notes),
        header=CSV_HEADER,
        rows=tuple(row for panel, found in drawn for curve in found for row in _rows(panel, curve)),
    )


def _plot(
    panel: Panel, curves: Sequence[Curve], arms: Sequence[str], span: tuple[int, int]
) -> Plot:
    first, last = span
    margin = 0.03 * (last - first) + 0.2

    def draw(axes: Axes, theme: Theme) -> None:
        draw_panel(axes, panel, curves, arm_styles(arms, theme), theme)
        axes.set_xlim(first - margin, last + margin)

    return Plot(panel.title, _describe(panel, curves), draw)


def _describe(panel: Panel, curves: Sequence[Curve]) -> str:
    """The panel in words: where each arm's line begins and ends."""
    courses = "; ".join(
        f"{label_of(curve.arm)} from {curve.mean[0]:.3g} at step {curve.steps[0]} "
        f"to {curve.mean[-1]:.3g} at step {curve.steps[-1]}"
        for curve in curves
    )
    return f"{panel.title}, {panel.axis_label}, by training step: {courses or 'not logged'}."


def arm_keys(arms: Sequence[str]) -> tuple[Key, ...]:
    """The legend's lines for arms, in the order given."""
    return tuple(
        Key(style.label, partial(_colour_of, arms, arm), style.marker)
        for arm, style in arm_styles(arms, LIGHT).items()
    )


def _colour_of(arms: Sequence[str], arm: str, theme: Theme) -> str:
    return arm_styles(arms, theme)[arm].colour


def _notes(groups: Mapping[str, Sequence[Run]], some_absent: bool, window: int) -> list[str]:
    settings = sorted({run.setting for runs in groups.values() for run in runs if run.setting})
    notes = [f"setting: {cut(', '.join(settings))}"] if settings else []
    notes.append(describe_seeds(groups))
    if some_absent:
        notes.append("dotted: not all runs of the arm")
    if window > 1:
        notes.append(f"bold: centred mean over {window} steps; thin: each step")
    return notes


def _rows(panel: Panel, curve: Curve) -> Iterator[tuple[object, ...]]:
    """A line per step."""
    label = label_of(curve.arm)
    columns = (curve.steps, curve.mean, curve.low, curve.high, curve.counts)
    for step, *values, seeds in zip(*(column.tolist() for column in columns), strict=True):
        yield (panel.title, curve.metric, curve.arm, label, step, *values, seeds)


def draw_curves(
    runs: Sequence[Run], theme: Theme, panels: Sequence[Panel] = TRAINING_PANELS
) -> Figure:
    """All arms in all panels, with one legend in a cell of its own."""
    return draw_sheet(curves_sheet(runs, panels), theme)


def _step_range(runs: Sequence[Run]) -> tuple[int, int]:
    """First and last step of all runs, so that every panel has the same x axis."""
    steps = [step for run in runs for step in run.steps]
    return (min(steps), max(steps)) if steps else (0, 1)


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
    """The band, then the line: solid where all of the arm's seeds have a value, else dotted. A long
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
    """Limits around all lines and bands with a margin, from zero where that is the metric's floor,
    within bounds.
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


def describe_seeds(groups: Mapping[str, Sequence[Run]]) -> str:
    """What a line and its band stand for, given how many seeds the arms have."""
    counts = sorted({len(runs) for runs in groups.values()})
    if len(groups) == 1 and counts == [1]:
        return "one run"
    if counts == [1]:
        return "one run per arm: differences between\narms may be chance"
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    if counts[-1] <= MOST_SEEDS_FOR_MIN_MAX:
        band = "min to max"
    elif counts[0] > MOST_SEEDS_FOR_MIN_MAX:
        band = "± standard error"
    else:
        band = "min to max,\n± standard error above 3 seeds"
    return f"{span} runs per arm;\nline: mean; band: {band}"


def write_curves(runs: Sequence[Run], out: Path) -> list[Path]:
    """`curves.png` (for a light page), `curves-dark.png`, `curves.pdf` and `curves.csv`."""
    sheet = curves_sheet(runs)
    return [*write_pictures(sheet, out, THEMES), write_numbers(sheet, out)]

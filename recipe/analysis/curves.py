"""Training curves: every arm in every panel, one picture.

What a line and its band mean is decided in `panels.aggregate`; the picture says it in words.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recipe.analysis.names import label_of
from recipe.analysis.panels import (
    MOST_SEEDS_FOR_MIN_MAX,
    TRAINING_PANELS,
    Curve,
    Panel,
    panel_curves,
)
from recipe.analysis.runs import Run, group_by_arm
from recipe.analysis.style import (
    README_WIDTH_IN,
    THEMES,
    ArmStyle,
    Theme,
    arm_styles,
    save,
    themed,
)

LOG_SPREAD = 20.0
"""A panel that may be logarithmic becomes so where its largest value exceeds its median by this
factor.
"""
PANEL_COLUMNS = 3
ROW_HEIGHT_IN = 2.35
MARKERS_PER_LINE = 8


def draw_curves(
    runs: Sequence[Run], theme: Theme, panels: Sequence[Panel] = TRAINING_PANELS
) -> Figure:
    """All arms in all panels, with one legend in a cell of its own; an empty panel says that its
    metric is absent.
    """
    groups = group_by_arm(runs)
    styles = arm_styles(list(groups), theme)
    rows = -(-(len(panels) + 1) // PANEL_COLUMNS)
    with themed(theme):
        figure = Figure(
            figsize=(README_WIDTH_IN, ROW_HEIGHT_IN * rows),
            layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07),
        )
        grid = figure.add_gridspec(rows, PANEL_COLUMNS)
        first, last = _step_range(runs)
        partial = False
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(grid[index // PANEL_COLUMNS, index % PANEL_COLUMNS])
            curves = panel_curves(groups, panel)
            partial |= any(curve.counts.min() < curve.counts.max() for curve in curves)
            draw_panel(axes, panel, curves, styles, theme)
            axes.set_xlim(first - 0.03 * (last - first) - 0.2, last + 0.03 * (last - first) + 0.2)
        corner = figure.add_subplot(grid[rows - 1, PANEL_COLUMNS - 1])
        _draw_legend(corner, groups, styles, theme, partial)
    return figure


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
    drawn = {curve.arm for curve in curves}
    absent = [styles[arm].label for arm in styles if arm not in drawn]
    note = [f"not logged: {', '.join(absent)}"] if absent else []
    note += ["symmetric log scale"] if logarithmic else []
    axes.annotate(
        "; ".join(note) or curves[0].metric,
        (0, 1),
        (0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7.5,
        color=theme.muted,
    )


def _draw_curve(axes: Axes, curve: Curve, style: ArmStyle) -> None:
    """The band, then the line: solid where all of the arm's seeds have a value, else dotted."""
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
    return f"{span} runs per arm\nline: mean; band: {band}"


def _draw_legend(
    axes: Axes,
    groups: Mapping[str, Sequence[Run]],
    styles: Mapping[str, ArmStyle],
    theme: Theme,
    partial: bool,
) -> None:
    axes.set_axis_off()
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            marker=style.marker,
            linewidth=1.6,
            markersize=5,
            label=style.label,
        )
        for style in styles.values()
    ]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, 1.1), borderaxespad=0, fontsize=9
    )
    settings = sorted({run.setting for runs in groups.values() for run in runs if run.setting})
    lines = [f"setting: {', '.join(settings)}"] if settings else []
    lines.append(describe_seeds(groups))
    if partial:
        lines.append("dotted: not all runs of the arm")
    axes.text(0, -0.1, "\n".join(lines), va="bottom", fontsize=8, color=theme.muted)


def write_curves_csv(
    runs: Sequence[Run], path: Path, panels: Sequence[Panel] = TRAINING_PANELS
) -> Path:
    """The numbers behind the picture, one line per panel, arm and step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    groups = group_by_arm(runs)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["panel", "metric", "arm", "label", "step", "mean", "low", "high", "seeds"])
        for panel in panels:
            for curve in panel_curves(groups, panel):
                columns = (curve.steps, curve.mean, curve.low, curve.high, curve.counts)
                for step, *values, seeds in zip(
                    *(column.tolist() for column in columns), strict=True
                ):
                    writer.writerow(
                        [
                            panel.title,
                            curve.metric,
                            curve.arm,
                            label_of(curve.arm),
                            step,
                            *values,
                            seeds,
                        ]
                    )
    return path


def write_curves(runs: Sequence[Run], out: Path, name: str = "curves") -> list[Path]:
    """`curves.png` (for a light page), `curves-dark.png`, `curves.pdf` and `curves.csv`, at a
    README's width and 2x density.
    """
    paths = []
    for theme in THEMES:
        formats = ("png", "pdf") if theme.suffix == "" else ("png",)
        paths += save(draw_curves(runs, theme), out / f"{name}{theme.suffix}", formats)
    return [*paths, write_curves_csv(runs, out / f"{name}.csv")]

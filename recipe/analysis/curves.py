"""Training curves: every arm in every panel, one picture.

What a line and its band mean is decided in `panels.aggregate`; the picture says it in words.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recipe.analysis.names import cut, label_of
from recipe.analysis.panel_axes import draw_panel
from recipe.analysis.panels import (
    MOST_SEEDS_FOR_MIN_MAX,
    TRAINING_PANELS,
    Curve,
    Panel,
    panel_curves,
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
from recipe.analysis.style import LIGHT, THEMES, Theme, arm_styles

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
    """All arms, or `groups` if they are given, in all panels; a panel whose metric nobody logged
    says so. With `keep_empty` off such panels, and those that are zero throughout, are only named
    in a note.
    """
    groups = group_by_arm(runs) if groups is None else groups
    drawn = [(panel, panel_curves(groups, panel)) for panel in panels]
    windows = {smoothing_window(len(curve.steps)) for _, found in drawn for curve in found}
    some_absent = any(
        curve.counts.min() < curve.counts.max() for _, found in drawn for curve in found
    )
    notes = _notes(groups, some_absent, max(windows, default=1))
    if not keep_empty:
        empty = [panel.title for panel, found in drawn if not found]
        zero = [panel.title for panel, found in drawn if found and _is_zero(found)]
        notes += [f"Not logged: {', '.join(empty)}"] if empty else []
        notes += [f"Zero at all steps: {', '.join(zero)}"] if zero else []
        drawn = [(panel, found) for panel, found in drawn if found and not _is_zero(found)]
    span = _step_range(runs)
    return Sheet(
        name=name,
        title=title,
        caption=caption,
        plots=tuple(_plot(panel, found, tuple(groups), span) for panel, found in drawn),
        keys=arm_keys(tuple(groups)),
        notes=tuple(notes),
        header=CSV_HEADER,
        rows=tuple(row for panel, found in drawn for curve in found for row in _rows(panel, curve)),
    )


def _is_zero(curves: Sequence[Curve]) -> bool:
    return not any(curve.low.any() or curve.high.any() for curve in curves)


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

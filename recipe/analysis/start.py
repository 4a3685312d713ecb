"""What a run's start spends its time on, from the command to the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from recipe.analysis.names import label_of
from recipe.analysis.runs import Run
from recipe.analysis.sheets import Key, Plot, Sheet, height_for
from recipe.analysis.style import LIGHT, Theme

MOST_RUNS = 4
"""Starts that are drawn; all are in the figure's numbers."""
COLOURS = len(LIGHT.parts)


@dataclass(frozen=True)
class Phase:
    """A stretch of a start; times in seconds since the first process was created."""

    process: str
    name: str
    start_s: float
    end_s: float


def phases_of(info: Mapping[str, Any]) -> list[Phase]:
    """The phases in a run's run.json, in its order; empty if it has none that can be read."""
    timing = info.get("timing")
    listed = timing.get("phases") if isinstance(timing, dict) else None
    found = []
    for one in listed if isinstance(listed, list) else []:
        try:
            phase = Phase(
                str(one["process"]), str(one["phase"]), float(one["start_s"]), float(one["end_s"])
            )
        except (KeyError, TypeError, ValueError):
            continue
        if 0 <= phase.start_s <= phase.end_s:
            found.append(phase)
    return found


def start_sheet(runs: Sequence[Run]) -> Sheet | None:
    """The starts of the first runs as bars, a row for each process; None if none was recorded."""
    starts = [(run, phases) for run in runs if (phases := phases_of(run.info))]
    if not starts:
        return None
    shown = starts[:MOST_RUNS]
    names = list(dict.fromkeys(phase.name for _, phases in shown for phase in phases))
    colours = {name: index % COLOURS for index, name in enumerate(names)}
    return Sheet(
        name="start",
        title="What a start spends its time on",
        caption="From the command to the end of the first step: what each process did or waited "
        "for. Between two bars of a row another process was waited for.",
        plots=tuple(_plot(run, phases, colours) for run, phases in shown),
        keys=tuple(Key(name, _colour(colours[name])) for name in names),
        notes=(),
        header=("arm", "seed", "process", "phase", "start_s", "end_s"),
        rows=tuple(
            (run.arm, run.seed, phase.process, phase.name, phase.start_s, phase.end_s)
            for run, phases in starts
            for phase in phases
        ),
    )


def _colour(index: int) -> Any:
    return lambda theme: theme.parts[index]


def _plot(run: Run, phases: Sequence[Phase], colours: Mapping[str, int]) -> Plot:
    processes = list(dict.fromkeys(phase.process for phase in phases))[::-1]

    def draw(axes: Axes, theme: Theme) -> None:
        axes.set_title(label_of(run.arm))
        axes.set_xlabel("seconds since the command")
        axes.grid(visible=False, axis="y")
        for phase in phases:
            axes.barh(
                processes.index(phase.process),
                phase.end_s - phase.start_s,
                left=phase.start_s,
                height=0.62,
                color=theme.parts[colours[phase.name]],
                edgecolor=theme.background,
                linewidth=0.6,
            )
        axes.set_yticks(range(len(processes)), processes)

    words = "; ".join(
        f"{phase.process}, {phase.name}: {phase.start_s:.1f} to {phase.end_s:.1f} s"
        for phase in phases
    )
    return Plot(
        label_of(run.arm), f"Start of {label_of(run.arm)}. {words}.", draw, height_for(processes)
    )

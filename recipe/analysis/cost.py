"""Where the time of a step goes, and what refining adds to it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from recipe.analysis import names
from recipe.analysis.curves import curves_sheet
from recipe.analysis.names import label_of, wrapped_label_of
from recipe.analysis.panels import Panel
from recipe.analysis.runs import Run, group_by_arm
from recipe.analysis.sheets import Key, Plot, Sheet, height_for, part_colour
from recipe.analysis.style import Theme

STEP = "timing_s/step"
REST = "everything else"


@dataclass(frozen=True)
class Part:
    """A part of a step: the timers it adds, less those that lie within them and are shown apart."""

    title: str
    timers: tuple[str, ...]
    within: tuple[str, ...] = ()


PARTS = (
    Part("rollouts, and refining meanwhile", ("gen",), ("refine_wait",)),
    Part("waiting for the last refinements", ("refine_wait",)),
    Part("old log-probs", ("old_log_prob",)),
    Part("reference log-probs and values", ("ref", "values")),
    Part("rewards and advantages", ("reward", "adv"), ("constraint_ce",)),
    Part("CE on a′", ("constraint_ce",)),
    Part("update of the actor", ("update_actor",)),
    Part("update of the critic", ("update_critic",)),
    Part("weights to the servers", ("update_weights",)),
)
"""`refine_wait` lies within `gen`, `constraint_ce` within `adv`; with `inject: sft` the CE is part
of the actor's update. Validation is timed apart from the step."""

TIME_PANEL = Panel("Time of a step", "seconds", names.STEP_TIME_S, from_zero=True)
TOKENS_PANEL = Panel(
    "Tokens the refiner decoded", "tokens per step", names.GENERATED_TOKENS, from_zero=True
)
SCORED_PANEL = Panel(
    "Tokens the refiner scored", "tokens per step", names.SCORED_TOKENS, from_zero=True
)
CALLS_PANEL = Panel("Calls of its engine", "calls per step", names.ENGINE_CALLS, from_zero=True)
WAIT_PANEL = Panel("Waiting for the refiner", "seconds", names.REFINE_WAIT_S, from_zero=True)
COST_PANELS = (TIME_PANEL, WAIT_PANEL, TOKENS_PANEL, SCORED_PANEL, CALLS_PANEL)


def seconds_by_part(run: Run) -> dict[str, float]:
    """Mean seconds of a step by the title of its part, and `REST`; empty without a step time, and
    without the parts that the run did not time.

    Only steps that have a step time count; a timer that is absent at a step is 0 there.
    """
    step = run.metrics.get(STEP)
    if step is None:
        return {}
    timed = [part for part in PARTS if any(f"timing_s/{t}" in run.metrics for t in part.timers)]
    seconds = {part.title: max(0.0, _sum(run, part)) for part in timed}
    return seconds | {REST: max(0.0, float(step.values.mean()) - math.fsum(seconds.values()))}


def _sum(run: Run, part: Part) -> float:
    added = math.fsum(_mean_timer(run, timer) for timer in part.timers)
    return added - math.fsum(_mean_timer(run, timer) for timer in part.within)


def _mean_timer(run: Run, timer: str) -> float:
    series, step = run.metrics.get(f"timing_s/{timer}"), run.metrics[STEP]
    if series is None:
        return 0.0
    return float(series.values[np.isin(series.steps, step.steps)].sum()) / len(step.steps)


def mean_by_arm(groups: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, float]]:
    """`seconds_by_part` averaged over the runs of each arm; arms without timers are left out."""
    found = {
        arm: [parts for run in runs if (parts := seconds_by_part(run))]
        for arm, runs in groups.items()
    }
    return {
        arm: {
            title: math.fsum(parts.get(title, 0.0) for parts in members) / len(members)
            for title in dict.fromkeys(title for parts in members for title in parts)
        }
        for arm, members in found.items()
        if members
    }


def cost_sheet(runs: Sequence[Run]) -> Sheet:
    """Seconds and shares of a step by part, and their course."""
    groups = group_by_arm(runs)
    by_arm = mean_by_arm(groups)
    titles = [
        title
        for title in (*(part.title for part in PARTS), REST)
        if any(parts.get(title, 0.0) > 0 for parts in by_arm.values())
    ]
    shares = {arm: _shares(parts) for arm, parts in by_arm.items()}
    curves = curves_sheet(runs, COST_PANELS, keep_empty=False)
    bars = (
        _bars("Seconds of a step", "mean seconds per step", by_arm, titles, percent=False),
        _bars("Shares of a step", "share of the step", shares, titles, percent=True),
    )
    return Sheet(
        name="cost",
        title="Where the time of a step goes",
        caption="Means over all steps and seeds; validation and loading are not part of a step. "
        "With inject: sft the CE on a′ is computed in the update of the actor and not timed apart.",
        plots=(*(bars if by_arm else ()), *curves.plots),
        keys=(*(_key(title) for title in titles), *curves.keys),
        notes=curves.notes,
        header=("arm", "label", "part", "mean_seconds", "share"),
        rows=tuple(
            (arm, label_of(arm), title, parts[title], shares[arm][title])
            for arm, parts in by_arm.items()
            for title in titles
            if title in parts
        ),
    )


def _shares(parts: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(parts.values())
    return {title: seconds / total if total else 0.0 for title, seconds in parts.items()}


def _colour_index(title: str) -> int:
    return next((i for i, part in enumerate(PARTS) if part.title == title), len(PARTS))


def _key(title: str) -> Key:
    return Key(title, part_colour(_colour_index(title)))


def _bars(
    title: str,
    axis_label: str,
    by_arm: Mapping[str, Mapping[str, float]],
    titles: Sequence[str],
    percent: bool,
) -> Plot:
    def draw(axes: Axes, theme: Theme) -> None:
        axes.set_title(title)
        axes.set_xlabel(axis_label)
        axes.grid(visible=False, axis="y")
        arms = list(by_arm)[::-1]
        left = np.zeros(len(arms))
        for name in titles:
            widths = np.array([by_arm[arm].get(name, 0.0) for arm in arms])
            axes.barh(
                range(len(arms)),
                widths,
                left=left,
                height=0.62,
                color=theme.parts[_colour_index(name)],
                edgecolor=theme.background,
                linewidth=0.6,
            )
            left += widths
        axes.set_yticks(range(len(arms)), [wrapped_label_of(arm) for arm in arms])
        if percent:
            axes.set_xlim(0, 1)
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    words = "; ".join(
        f"{label_of(arm)}: "
        + ", ".join(
            f"{name} {parts[name]:.0%}" if percent else f"{name} {parts[name]:.2f} s"
            for name in titles
            if name in parts
        )
        for arm, parts in by_arm.items()
    )
    height_in = height_for([wrapped_label_of(arm) for arm in by_arm])
    return Plot(title, f"{title} by part. {words}.", draw, height_in)

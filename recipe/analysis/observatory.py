"""The observatory's panels: what the refiner does, what it saves, and how the policy fares."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from recipe.analysis import names
from recipe.analysis.curves import curves_sheet
from recipe.analysis.derived import AVOIDED_SHARE, OUTCOME_SHARE, PENALTY_BY_REDUCTION
from recipe.analysis.episodes import OUTCOMES
from recipe.analysis.names import label_of
from recipe.analysis.panels import COPY_RATIO, ENTROPY, LENGTH, Curve, Panel, aggregate
from recipe.analysis.runs import Run, group_by_arm
from recipe.analysis.sheets import Key, Plot, Sheet, part_colour
from recipe.analysis.style import Theme
from recipe.analysis.tables import Table

TITLE_COLUMNS = 36
OUTCOME_COLOURS = {
    "skipped_perfect": 9,
    "verbatim": 7,
    "improved": 8,
    "not_improved": 4,
    "failed": 1,
}
"""Index of the theme's part that an outcome is drawn in."""

REFINER_PANELS = (
    COPY_RATIO,
    Panel("Edit distance", "token edits", names.EDIT_DISTANCE, from_zero=True),
    Panel("Reward gain", "mean R(a′) − R(a)", names.REWARD_GAIN),
    Panel("Avoided work", "share of rollouts", (AVOIDED_SHARE,), (0, 1), True),
    Panel("CE where a′ copies", "nats per token", names.CE_COPIED, from_zero=True),
    Panel("CE where a′ edits", "nats per token", names.CE_EDITED, from_zero=True),
    Panel("Format repaired", "share of accepted a′", names.FORMAT_FIXES, (0, 1), True),
    Panel("Failed refinements", "rollouts per step", names.FAILED, from_zero=True),
    Panel("Queue of the refiner", "longest in a step", names.QUEUE_DEPTH, from_zero=True),
    Panel("Servers of the refiner", "alive", names.REPLICAS_ALIVE, from_zero=True),
)
POLICY_PANELS = (
    ENTROPY,
    Panel("Reward spread in a group", "standard deviation", names.GROUP_STD, from_zero=True),
    Panel("Distinct responses in a group", "share", names.GROUP_DISTINCT, (0, 1), True),
    LENGTH,
    Panel("Gradient norm", "norm", names.GRADIENT_NORM, from_zero=True, may_be_log=True),
    Panel(
        "Penalty, summed over tokens",
        "λ·ΣCE per rollout",
        (PENALTY_BY_REDUCTION.format("sum"),),
        from_zero=True,
        may_be_log=True,
    ),
    Panel(
        "Penalty, mean over tokens",
        "λ·mean CE per rollout",
        (PENALTY_BY_REDUCTION.format("mean"),),
        from_zero=True,
        may_be_log=True,
    ),
    Panel("λ", "weight of the constraint", names.LAMBDA, from_zero=True),
    Panel(
        "Actor against rollout engine",
        "largest difference",
        names.ROLLOUT_DISAGREEMENT,
        from_zero=True,
    ),
)


def refiner_sheet(runs: Sequence[Run]) -> Sheet:
    """What the refiner does, from the first copy to the last failure."""
    return curves_sheet(
        runs,
        REFINER_PANELS,
        "refiner",
        "The refiner at work",
        "Avoided work: perfect rollouts, which are not refined, and verbatim refinements, which "
        "are neither judged nor learned from.",
        keep_empty=False,
    )


def policy_sheet(runs: Sequence[Run]) -> Sheet:
    """How the policy fares, beside its reward."""
    return curves_sheet(
        runs,
        POLICY_PANELS,
        "policy",
        "The policy",
        "Group: the rollouts of one prompt.",
        keep_empty=False,
    )


def outcome_sheet(runs: Sequence[Run]) -> Sheet:
    """For each arm, what became of the rollouts of a step: shares, stacked."""
    found = {arm: _outcomes(arm, members) for arm, members in group_by_arm(runs).items()}
    stacks = {arm: curves for arm, curves in found.items() if curves}
    silent = [label_of(arm) for arm, curves in found.items() if not curves]
    return Sheet(
        name="outcomes",
        title="What became of the rollouts",
        caption="Shares of a step's rollouts, mean over seeds. Better: R(a′) > R(a).",
        plots=tuple(_stack(arm, curves) for arm, curves in stacks.items()),
        keys=tuple(
            Key(label, part_colour(OUTCOME_COLOURS[key])) for key, label in OUTCOMES.items()
        ),
        notes=(f"Not logged, or no episodes: {', '.join(silent)}",) if silent else (),
        header=("arm", "label", "outcome", "step", "mean_share", "seeds"),
        rows=tuple(
            (arm, label_of(arm), key, step, share, seeds)
            for arm, curves in stacks.items()
            for key, curve in curves.items()
            for step, share, seeds in zip(
                curve.steps.tolist(), curve.mean.tolist(), curve.counts.tolist(), strict=True
            )
        ),
    )


def _outcomes(arm: str, runs: Sequence[Run]) -> dict[str, Curve]:
    """One curve an outcome, all over the same steps; empty if no run has them."""
    curves = {}
    for key in OUTCOMES:
        name = OUTCOME_SHARE.format(key)
        series = [run.metrics[name] for run in runs if name in run.metrics]
        if series:
            curves[key] = aggregate(arm, name, series)
    return curves


def _stack(arm: str, curves: Mapping[str, Curve]) -> Plot:
    label = label_of(arm)

    def draw(axes: Axes, theme: Theme) -> None:
        steps = next(iter(curves.values())).steps
        axes.set_title(textwrap.fill(label, TITLE_COLUMNS))
        axes.set_xlabel("training step")
        axes.set_ylabel("share of rollouts")
        edges = np.append(steps - 0.5, steps[-1] + 0.5)
        bottom = np.zeros(len(steps))
        for key, curve in curves.items():
            colour = theme.parts[OUTCOME_COLOURS[key]]
            top = bottom + curve.mean
            axes.stairs(top, edges, baseline=bottom, fill=True, color=colour, linewidth=0.0)
            bottom = top
        axes.set_ylim(0, 1)
        axes.set_xlim(edges[0], edges[-1])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=False)

    ends = ", ".join(
        f"{OUTCOMES[key]} {curve.mean[0]:.0%} to {curve.mean[-1]:.0%}"
        for key, curve in curves.items()
    )
    return Plot(label, f"{label}: what became of the rollouts, first to last step: {ends}.", draw)


def verdict_table(runs: Sequence[Run]) -> Table | None:
    """How often each verdict on a turned into each verdict on a', over all judged edits."""
    pairs = Counter(
        (item.verdict, item.refined_verdict)
        for run in runs
        for item in run.episodes
        if not item.verbatim and item.verdict and item.refined_verdict
    )
    if not pairs:
        return None
    before = sorted({pair[0] for pair in pairs})
    after = sorted({pair[1] for pair in pairs})
    rows = [
        (_words(first), *(f"{pairs[first, last]}" for last in after), f"{_row(pairs, first)}")
        for first in before
    ]
    return Table(("a ↓   a′ →", *map(_words, after), "all"), tuple(rows))


FAILURES = (
    "too_long",
    "no_response",
    "truncated",
    "repetitive",
    "empty",
    "wrong_script",
    "deadline",
    "step_deadline",
    "engine_error",
    "unjudged",
)
"""The ways in which a refinement comes to nothing, as the refiner counts them; the docs of the
refiner say what each means."""


def failure_table(runs: Sequence[Run]) -> Table | None:
    """How many refinements of each arm failed, by reason; None if none did or none was logged.

    Arms without such counters are left out.
    """
    groups = group_by_arm(runs)
    counts = {arm: _failures(members) for arm, members in groups.items()}
    logged = {arm: found for arm, found in counts.items() if found}
    reasons = [name for name in FAILURES if any(found.get(name) for found in logged.values())]
    if not reasons:
        return None
    rows = [
        (_words(name), *(f"{found.get(name, 0.0):.0f}" for found in logged.values()))
        for name in reasons
    ]
    return Table(("reason", *map(label_of, logged)), tuple(rows))


def _failures(runs: Sequence[Run]) -> dict[str, float]:
    """Failed refinements by reason, over all runs and steps; only the reasons that are logged."""
    found: dict[str, float] = {}
    for name in FAILURES:
        series = [
            run.metrics[metric]
            for run in runs
            if (metric := f"refiner/{name}_total") in run.metrics
        ]
        if series:
            found[name] = float(sum(item.values.sum() for item in series))
    return found


def _row(pairs: Mapping[tuple[str, str], int], first: str) -> int:
    return sum(count for (before, _), count in pairs.items() if before == first)


def _words(verdict: str) -> str:
    return verdict.replace("_", " ")

"""Dynamic arms against the unconstrained one, and the improvement ratio (paper, figure 5)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from recipe.analysis.curves import curves_sheet
from recipe.analysis.derived import REWARD_OVER_NONE
from recipe.analysis.names import label_of, wrapped_label_of
from recipe.analysis.panels import (
    CROSS_ENTROPY,
    IMPROVEMENT,
    KL,
    PASS_AT_1,
    REWARD,
    VALIDATION,
    Panel,
)
from recipe.analysis.runs import Run, choose_metric
from recipe.analysis.sheets import Plot, Sheet, height_for
from recipe.analysis.style import Theme, arm_styles
from recipe.analysis.summary import RunSummary

OVER_NONE = Panel("Reward over “none”", "difference of mean rewards", (REWARD_OVER_NONE,))


def answer_sheet(runs: Sequence[Run]) -> Sheet:
    """The one figure of the first screen: the reward of every arm."""
    return curves_sheet(runs, (REWARD,), "answer", "Reward")


def dynamics_sheet(runs: Sequence[Run]) -> Sheet:
    """The course of the training (paper, figure 4)."""
    return curves_sheet(
        runs,
        (REWARD, KL, CROSS_ENTROPY),
        "dynamics",
        "Training dynamics",
        "As the paper's figure 4. KL to the reference is watched, never constrained, except by "
        "“static KL”. CE: the policy's on accepted refinements, given the problem alone.",
    )


def comparison_sheet(runs: Sequence[Run], summaries: Mapping[str, Sequence[RunSummary]]) -> Sheet:
    """Validation, reward over the unconstrained arm, improvement ratio, and where each run ended.

    `runs` carry their derived series.
    """
    validation, passes = (choose_metric(runs, one.patterns) for one in (VALIDATION, PASS_AT_1))
    sheet = curves_sheet(
        runs,
        (
            VALIDATION,
            *([PASS_AT_1] if passes not in (None, validation) else []),
            OVER_NONE,
            IMPROVEMENT,
        ),
        "comparison",
        "Against training without the constraint",
        "As the paper's figure 5. “none” is the same algorithm (DAPO, GRPO or PPO) without the "
        "constraint. Over “none” its own line is zero, and its band is what chance does to seeds.",
    )
    return Sheet(**{**vars(sheet), "plots": (*sheet.plots, *_ends(summaries))})


def _ends(summaries: Mapping[str, Sequence[RunSummary]]) -> tuple[Plot, ...]:
    """Each run's mean reward at the end as a dot, each arm's mean as a larger one."""
    ends = {
        arm: [item.reward_end for item in items if not math.isnan(item.reward_end)]
        for arm, items in summaries.items()
    }
    ends = {arm: values for arm, values in ends.items() if values}
    if not ends:
        return ()
    means = {arm: math.fsum(values) / len(values) for arm, values in ends.items()}

    def draw(axes: Axes, theme: Theme) -> None:
        styles = arm_styles(list(summaries), theme)
        axes.set_title("Reward at the end")
        axes.set_xlabel("mean reward over the last steps")
        arms = list(ends)[::-1]
        for row, arm in enumerate(arms):
            look: dict[str, Any] = {
                "color": styles[arm].colour,
                "marker": styles[arm].marker,
                "linestyle": "",
            }
            axes.plot(ends[arm], [row] * len(ends[arm]), markersize=5, alpha=0.5, **look)
            axes.plot(means[arm], row, markersize=9, **look)
        axes.set_yticks(range(len(arms)), [wrapped_label_of(arm) for arm in arms])
        axes.set_ylim(-0.6, len(arms) - 0.4)
        axes.margins(x=0.08)

    words = "; ".join(f"{label_of(arm)} {mean:.2f}" for arm, mean in means.items())
    return (
        Plot(
            "Reward at the end",
            f"Mean reward over the last steps: {words}.",
            draw,
            height_for([wrapped_label_of(arm) for arm in ends]),
        ),
    )

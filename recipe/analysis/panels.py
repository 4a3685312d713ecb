"""The panels of a picture of curves, and the seeds of an arm aggregated to a line and a band."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recipe.analysis import names
from recipe.analysis.metrics_file import Series
from recipe.analysis.runs import Run, choose_metric

MOST_SEEDS_FOR_MIN_MAX = 3
MOST_STEPS_UNSMOOTHED = 60


@dataclass(frozen=True)
class Panel:
    """One panel: `patterns` name the metric in order of preference, `bounds` are what its values
    cannot exceed.
    """

    title: str
    axis_label: str
    patterns: tuple[str, ...]
    bounds: tuple[float, float] = (-np.inf, np.inf)
    from_zero: bool = False
    may_be_log: bool = False


REWARD = Panel("Reward in training", "mean reward of a batch", names.REWARD)
VALIDATION = Panel("Validation", "mean on held-out set", names.VALIDATION)
PASS_AT_1 = Panel(
    "pass@1 in validation", "share of responses that pass all tests", names.PASS_AT_1, (0, 1)
)
KL = Panel(
    "KL to the reference",
    "KL (nats per response)",
    names.KL_TO_REFERENCE,
    from_zero=True,
    may_be_log=True,
)
CROSS_ENTROPY = Panel(
    "Cross entropy on a′",
    "CE (nats per token)",
    names.CROSS_ENTROPY,
    from_zero=True,
    may_be_log=True,
)
IMPROVEMENT = Panel(
    "Improvement ratio", "share with R(a′) > R(a)", names.IMPROVEMENT_RATIO, (0, 1), True
)
COPY_RATIO = Panel("Copy ratio", "copied share of a′", names.COPY_RATIO, (0, 1))
ENTROPY = Panel("Entropy of the policy", "entropy (nats per token)", names.ENTROPY, from_zero=True)
LENGTH = Panel("Response length", "tokens", names.RESPONSE_LENGTH, from_zero=True)

TRAINING_PANELS = (
    REWARD,
    VALIDATION,
    KL,
    CROSS_ENTROPY,
    IMPROVEMENT,
    COPY_RATIO,
    ENTROPY,
    LENGTH,
)


@dataclass(frozen=True)
class Curve:
    """One arm in one panel: all arrays [N], over the steps any of its seeds has; `counts` are the
    seeds at a step.
    """

    arm: str
    metric: str
    steps: NDArray[np.int64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    counts: NDArray[np.int64]


def aggregate(arm: str, metric: str, series: Sequence[Series]) -> Curve:
    """Mean over seeds and its band: the range for up to three seeds, one standard error either side
    for more.

    The standard error is the sample standard deviation over sqrt(seeds at that step); a step that a
    single seed has gets an empty band. At least one series is needed.
    """
    steps = np.unique(np.concatenate([item.steps for item in series]))
    table = np.full((len(series), len(steps)), np.nan)
    for row, item in enumerate(series):
        table[row, np.searchsorted(steps, item.steps)] = item.values
    counts = np.sum(~np.isnan(table), axis=0)
    mean = np.nansum(table, axis=0) / counts
    if len(series) <= MOST_SEEDS_FOR_MIN_MAX:
        low, high = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
    else:
        squares = np.nansum((table - mean) ** 2, axis=0)
        error = np.sqrt(squares / np.maximum(counts - 1, 1) / counts)
        low, high = mean - error, mean + error
    return Curve(arm, metric, steps, mean, low, high, counts)


def smoothing_window(steps: int) -> int:
    """Over how many steps a line is averaged: 1 for short curves, else an odd number near a
    twentieth of their steps. Ours.
    """
    return 1 if steps <= MOST_STEPS_UNSMOOTHED else 2 * (steps // 40) + 1


def smooth(curve: Curve) -> Curve:
    """Line and band averaged over the window centred at each step; at the ends over what there is
    of it.
    """
    window = smoothing_window(len(curve.steps))
    ones = np.ones(window)
    inside = np.convolve(np.ones(len(curve.steps)), ones, mode="same")
    mean, low, high = (
        np.convolve(values, ones, mode="same") / inside
        for values in (curve.mean, curve.low, curve.high)
    )
    return replace(curve, mean=mean, low=low, high=high)


def panel_curves(groups: Mapping[str, Sequence[Run]], panel: Panel) -> list[Curve]:
    """The panel's curves, one for each arm that logged its metric."""
    metric = choose_metric([run for runs in groups.values() for run in runs], panel.patterns)
    curves = []
    for arm, runs in groups.items():
        series = [
            run.metrics[metric] for run in runs if metric is not None and metric in run.metrics
        ]
        if metric is not None and series:
            curves.append(aggregate(arm, metric, series))
    return curves

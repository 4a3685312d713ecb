"""The numbers of a report: one summary per run, up to a step that all runs have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from recipe.analysis import names
from recipe.analysis.common_ground import common_step, common_validation, validation_error
from recipe.analysis.episodes import mean_ce
from recipe.analysis.runs import Run, choose_metric, group_by_arm

MAX_WINDOW_STEPS = 10


@dataclass(frozen=True)
class RunSummary:
    """One run in numbers; NaN if the run did not log what is needed.

    `steps` is the last that the run has reached, `compared_to` the last that all runs of its
    setting have: everything that is compared stops there. `reward_start` and `reward_end` are means
    over the first and the last `window` steps until then. `validation_end` is at `validation_step`,
    the last that all runs validated at; `validation_error` is the largest standard error that it
    can have with its number of problems; `pass_start` and `pass_end` are pass@1 at the validations
    before training and at that step. Improvement ratios are means over the first and last
    third of the steps. CE is in nats per token. `disagreement_max` is the largest difference
    between rollout engine and actor on any token.
    """

    arm: str
    seed: int | None
    steps: int
    total_steps: int | None
    compared_to: int
    window: int
    reward_start: float
    reward_end: float
    validation_start: float
    validation_end: float
    validation_step: int
    validation_error: float
    pass_start: float
    pass_end: float
    kl_end: float
    improvement_first: float
    improvement_last: float
    verbatim: int
    edited: int
    accepted: int
    ce_copied: float
    ce_edited: float
    disagreement_max: float
    disagreement_metric: str | None
    step_time_s: float
    steps_time_s: float
    wall_time_s: float


@dataclass(frozen=True)
class Metrics:
    """The names by which all runs of a report are read; None if no run has such a metric."""

    reward: str | None
    validation: str | None
    passes: str | None
    kl: str | None
    improvement: str | None
    disagreement: str | None
    step_time: str | None


def summarise(runs: Sequence[Run]) -> dict[str, list[RunSummary]]:
    """Summaries of all runs by arm, arms in the order of `group_by_arm`; all runs are read by the
    same metric names, those of a setting up to the same step.
    """
    patterns = (
        names.REWARD,
        names.VALIDATION,
        names.PASS_AT_1,
        names.KL_TO_REFERENCE,
        names.IMPROVEMENT_RATIO,
        names.ROLLOUT_DISAGREEMENT,
        names.STEP_TIME_S,
    )
    metrics = Metrics(*(choose_metric(runs, group) for group in patterns))
    ends = {setting: common_step(runs, setting, metrics.reward) for setting in _settings(runs)}
    validated = {setting: common_validation(runs, setting, metrics.validation) for setting in ends}
    return {
        arm: [
            _summarise_run(run, metrics, ends[run.setting], validated[run.setting])
            for run in members
        ]
        for arm, members in group_by_arm(runs).items()
    }


def _settings(runs: Sequence[Run]) -> set[str]:
    return {run.setting for run in runs}


def _summarise_run(run: Run, names_: Metrics, until: int, validated: int) -> RunSummary:
    rewards = _values(run, names_.reward, until)
    ratios = _values(run, names_.improvement, until)
    step_times = _values(run, names_.step_time)
    window, third = window_steps(len(rewards)), max(1, len(ratios) // 3)
    episodes = [item for item in run.episodes if item.step <= until]
    copied, edited = mean_ce(episodes)
    validation = _at(run, names_.validation, validated)
    return RunSummary(
        arm=run.arm,
        seed=run.seed,
        steps=run.steps[-1] if run.steps else 0,
        total_steps=run.total_steps,
        compared_to=until,
        window=window,
        reward_start=_mean(rewards[:window]),
        reward_end=_mean(rewards[-window:]),
        validation_start=_at(run, names_.validation, 0),
        validation_end=validation,
        validation_step=validated,
        validation_error=validation_error(run, names_.validation, validation),
        pass_start=_at(run, names_.passes, 0),
        pass_end=_at(run, names_.passes, validated),
        kl_end=_mean(_values(run, names_.kl, until)[-1:]),
        improvement_first=_mean(ratios[:third]),
        improvement_last=_mean(ratios[-third:]),
        verbatim=sum(item.verbatim for item in episodes),
        edited=sum(not item.verbatim for item in episodes),
        accepted=sum(item.accepted for item in episodes),
        ce_copied=copied,
        ce_edited=edited,
        disagreement_max=_max(_values(run, names_.disagreement)),
        disagreement_metric=names_.disagreement,
        step_time_s=float(np.median(step_times)) if len(step_times) else math.nan,
        steps_time_s=float(step_times.sum()) if len(step_times) else math.nan,
        wall_time_s=_wall_time_s(run),
    )


def window_steps(steps: int) -> int:
    """How many steps "start" and "end" average over: a quarter of those logged, at least 1 and at
    most 10.
    """
    return max(1, min(MAX_WINDOW_STEPS, steps // 4))


def _values(run: Run, metric: str | None, until: int | None = None) -> NDArray[np.float64]:
    """The metric at each step, or at those up to `until`."""
    series = run.metrics.get(metric) if metric is not None else None
    if series is None:
        return np.array([])
    return series.values if until is None else series.values[series.steps <= until]


def _at(run: Run, metric: str | None, step: int) -> float:
    """The metric at one step, NaN if it was not logged."""
    series = run.metrics.get(metric) if metric is not None else None
    found = np.array([]) if series is None else series.values[series.steps == step]
    return float(found[0]) if len(found) else math.nan


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _max(values: NDArray[np.float64]) -> float:
    return float(values.max()) if len(values) else math.nan


def _wall_time_s(run: Run) -> float:
    """From `started_at` to `finished_at` of run.json (ISO 8601), NaN if either is absent or
    unreadable.
    """
    try:
        started, finished = (
            datetime.fromisoformat(run.info[key]) for key in ("started_at", "finished_at")
        )
        return (finished - started).total_seconds()
    except (KeyError, TypeError, ValueError):
        return math.nan

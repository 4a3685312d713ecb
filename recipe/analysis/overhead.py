"""What refining costs beside a run without it: tokens of policy and refiner, time, GPU-hours."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from recipe.analysis import names
from recipe.analysis.names import label_of, setting_of
from recipe.analysis.runs import Run, choose_metric, group_by_arm
from recipe.analysis.tables import ABSENT, Table

TOTAL_TOKENS = "perf/total_num_tokens"
RESPONSE, PROMPT = "response_length/mean", "prompt_length/mean"
WITH_OVERHEAD = "Overhead: median step time over that of the runs that asked no refiner."
NO_OVERHEAD = (
    "The overhead of refining cannot be computed from these runs, since each of them asked the "
    "refiner (an arm without a constraint does so too with refiner.observe, as in the quickstart). "
    "scripts/bench/step.py measures it."
)


def refines(run: Run) -> bool:
    """Whether the run asked a refiner, be it only to observe."""
    return any(name.startswith("refiner/") for name in run.metrics)


def policy_tokens(run: Run) -> float:
    """Tokens that the policy wrote in all steps; NaN if the log does not say.

    verl logs the tokens of a batch with their prompts, and the mean lengths of both: the responses'
    share of the tokens is that of their mean length.
    """
    if any(name not in run.metrics for name in (TOTAL_TOKENS, RESPONSE, PROMPT)):
        return math.nan
    total, response, prompt = (run.metrics[name] for name in (TOTAL_TOKENS, RESPONSE, PROMPT))
    steps = np.intersect1d(np.intersect1d(total.steps, response.steps), prompt.steps)
    tokens, written, asked = (
        item.values[np.isin(item.steps, steps)] for item in (total, response, prompt)
    )
    return float((tokens * written / np.maximum(written + asked, 1e-9)).sum())


def sum_of(run: Run, metric: str) -> float:
    """A metric added over all steps, NaN if it was not logged."""
    series = run.metrics.get(metric)
    return math.nan if series is None else float(series.values.sum())


def devices(run: Run) -> int | None:
    """GPUs that the run held, with those of a refiner's own pool; 0 on a CPU, None if unknown."""
    keys = run.configuration
    if keys.get("trainer.device") == "cpu":
        return 0
    held = _product(keys, "trainer.n_gpus_per_node", "trainer.nnodes")
    if held is None:
        return None
    if keys.get("refiner.placement") != "pool" or not refines(run):
        return held
    pool = _product(keys, "refiner.pool.n_gpus_per_node", "refiner.pool.nnodes")
    return None if pool is None else held + pool


def _product(keys: Mapping[str, str], first: str, second: str) -> int | None:
    values = [keys.get(first, ""), keys.get(second, "")]
    return int(values[0]) * int(values[1]) if all(map(str.isdecimal, values)) else None


def cost_table(runs: Sequence[Run]) -> tuple[Table, str]:
    """Tokens, hours and step times by arm, and a sentence on the overhead or on why it is unknown.

    Tokens and hours are means over the seeds. The overhead is the median step time over that of
    the arm that asks no refiner; the first step is left out if there are others, since it holds
    what happens once.
    """
    metric = choose_metric(runs, names.STEP_TIME_S)
    groups = group_by_arm(runs)
    medians = {arm: _median_s(members, metric) for arm, members in groups.items()}
    without = [
        arm
        for arm, members in groups.items()
        if not math.isnan(medians[arm]) and not any(map(refines, members))
    ]
    rows = tuple(
        (
            label_of(arm),
            *_tokens(members),
            *_hours(members, metric),
            _number(medians[arm], "{:.2f}"),
            *(_ratio(arm, base, medians) for base in without),
        )
        for arm, members in groups.items()
    )
    ratios = tuple(f"over {label_of(base)}" for base in without)
    return Table((*COLUMNS, *ratios), rows), WITH_OVERHEAD if without else NO_OVERHEAD


COLUMNS = (
    "arm",
    "policy tokens",
    "refiner decoded",
    "refiner scored",
    "hours of steps",
    "GPU-hours",
    "median step (s)",
)


def _tokens(runs: Sequence[Run]) -> tuple[str, str, str]:
    written = [policy_tokens(run) for run in runs]
    decoded = [sum_of(run, names.GENERATED_TOKENS[0]) for run in runs]
    scored = [sum_of(run, names.SCORED_TOKENS[0]) for run in runs]
    first, second, third = (
        _number(_mean(values), "{:,.0f}") for values in (written, decoded, scored)
    )
    return first, second, third


def _hours(runs: Sequence[Run], metric: str | None) -> tuple[str, str]:
    """Hours of the training steps, and those times the GPUs held."""
    hours = [sum_of(run, metric) / 3600 if metric else math.nan for run in runs]
    held = [devices(run) for run in runs]
    if any(count is None for count in held):
        return _number(_mean(hours), "{:.2f}"), ABSENT
    used = [hour * (count or 0) for hour, count in zip(hours, held, strict=True)]
    return _number(_mean(hours), "{:.2f}"), _number(_mean(used), "{:.2f}") if any(held) else "CPU"


def _mean(values: Sequence[float]) -> float:
    found = [value for value in values if not math.isnan(value)]
    return math.fsum(found) / len(found) if found else math.nan


def _number(value: float, form: str) -> str:
    return ABSENT if math.isnan(value) else form.format(value)


def _ratio(arm: str, base: str, medians: Mapping[str, float]) -> str:
    """Only within a setting: another has other sizes."""
    if setting_of(arm) != setting_of(base) or not medians[base] > 0:
        return ABSENT
    return _number(medians[arm] / medians[base], "{:.2f}")


def _median_s(runs: Sequence[Run], metric: str | None) -> float:
    series = [run.metrics[metric] for run in runs if metric is not None and metric in run.metrics]
    values = [item.values[1:] if len(item.values) > 1 else item.values for item in series]
    return float(np.median(np.concatenate(values))) if values else math.nan

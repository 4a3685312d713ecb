"""Sentences on what was seen in the runs, none of which claims that arms differ."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev

from recipe.analysis.names import label_of
from recipe.analysis.panels import MOST_SEEDS_FOR_MIN_MAX
from recipe.analysis.summary import RunSummary

DISAGREEMENT_TOLERANCE = 1e-4
IMPROVEMENT_AT_WORK = 0.05
BOUND_OF_A_RUN = "± at most one standard error of a run"


def validations(summaries: Mapping[str, Sequence[RunSummary]]) -> list[str]:
    """The validations at the last common step with their standard error, and how far apart the same
    weights were before training.

    The error is that of the mean over the runs if each arm has more than `MOST_SEEDS_FOR_MIN_MAX`,
    else the largest that the number of problems leaves one run.
    """
    values = {
        arm: _logged(item.validation_end for item in found) for arm, found in summaries.items()
    }
    values = {arm: found for arm, found in values.items() if found}
    over_runs = min(map(len, values.values()), default=0) > MOST_SEEDS_FOR_MIN_MAX
    ends = []
    for arm, found in values.items():
        bounds = _logged(item.validation_error for item in summaries[arm])
        errors = [stdev(found) / math.sqrt(len(found))] if over_runs else bounds
        error = f" ± {max(errors):.2f}" if errors else ""
        ends.append(f"{label_of(arm)} {signed_number(math.fsum(found) / len(found))}{error}")
    starts = _logged(item.validation_start for items in summaries.values() for item in items)
    words = ""
    if len(starts) > 1:
        low, high = signed_number(min(starts)), signed_number(max(starts))
        words = f"before training it lay between {low} and {high}"
    if not ends:
        return [f"Validation on held-out problems: {words}."] if words else []
    steps = sorted({item.validation_step for items in summaries.values() for item in items} - {-1})
    whose = "± one standard error over the runs" if over_runs else BOUND_OF_A_RUN
    errors_named = f" ({whose})" if "±" in "".join(ends) else ""
    tail = f"; {words}" if words else ""
    return [
        f"Validation on held-out problems at step {span(steps)}{errors_named}: "
        f"{', '.join(ends)}{tail}."
    ]


def refiner(summaries: Mapping[str, Sequence[RunSummary]]) -> list[str]:
    """What the refiner did, and whether actor and rollout engine agree, over all runs."""
    items = [item for members in summaries.values() for item in members]
    sentences = []
    ratios = _logged(item.improvement_first for item in items)
    if ratios:
        word = "above" if min(ratios) > IMPROVEMENT_AT_WORK else "not everywhere above"
        verbatim, edited = sum(item.verbatim for item in items), sum(item.edited for item in items)
        sentences.append(
            f"Improvement ratio in the first third: {_range(ratios)} ({word} "
            f"{IMPROVEMENT_AT_WORK}); {verbatim} refinements were verbatim, {edited} edited."
        )
    copied = _logged(item.ce_copied for item in items)
    changed = _logged(item.ce_edited for item in items)
    if copied and changed:
        sentences.append(
            f"CE of the policy per token: {_range(copied)} nats where a′ copies, "
            f"{_range(changed)} where it edits."
        )
    gaps = _logged(item.disagreement_max for item in items)
    if gaps:
        word = "within" if max(gaps) <= DISAGREEMENT_TOLERANCE else "above"
        sentences.append(
            f"Actor and rollout engine differ by at most {max(gaps):.1e} on a token ({word} "
            f"{DISAGREEMENT_TOLERANCE:.0e}; {items[0].disagreement_metric})."
        )
    return sentences


def span(values: Sequence[int]) -> str:
    """Ascending numbers as one number or as a range."""
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _logged(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def signed_number(value: float) -> str:
    """Two digits, with the sign for minus."""
    return f"{value:.2f}".replace("-", "−")

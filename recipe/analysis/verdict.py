"""What was seen, in plain words and no further than the data go.

An arm that was expected to win and did not is reported like any other; a difference is called one
only where it exceeds the scatter that the runs themselves show.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recipe.analysis.names import label_of
from recipe.analysis.panels import MOST_SEEDS_FOR_MIN_MAX
from recipe.analysis.summary import RunSummary

BASELINES = ("none", "static_kl")
DISAGREEMENT_TOLERANCE = 1e-4
IMPROVEMENT_AT_WORK = 0.05


@dataclass(frozen=True)
class Standing:
    """An arm's reward at the end: mean over its runs, their range, and the step-to-step scatter
    within a run.
    """

    arm: str
    start: float
    end: float
    low: float
    high: float
    scatter: float
    runs: int

    @property
    def label(self) -> str:
        return label_of(self.arm)


def standings(summaries: Mapping[str, Sequence[RunSummary]]) -> list[Standing]:
    """Arms with a reward, best first."""
    found = []
    for arm, items in summaries.items():
        scored = [item for item in items if not math.isnan(item.reward_end)]
        if scored:
            ends = [item.reward_end for item in scored]
            scatters = [
                item.reward_scatter for item in scored if not math.isnan(item.reward_scatter)
            ]
            found.append(
                Standing(
                    arm=arm,
                    start=math.fsum(item.reward_start for item in scored) / len(scored),
                    end=math.fsum(ends) / len(ends),
                    low=min(ends),
                    high=max(ends),
                    scatter=max(scatters, default=math.nan),
                    runs=len(scored),
                )
            )
    return sorted(found, key=lambda item: -item.end)


def told_apart(better: Standing, worse: Standing) -> bool:
    """Whether the data separate two arms: disjoint ranges where both have several runs, else more
    than their scatter.

    With one run the yardstick is the larger step-to-step standard deviation, which says nothing
    about other seeds; where there is no scatter to compare with, nothing is told apart.
    """
    if min(better.runs, worse.runs) > 1:
        return better.low > worse.high
    scatters = [item.scatter for item in (better, worse) if not math.isnan(item.scatter)]
    return bool(scatters) and better.end - worse.end > max(scatters)


def write_verdict(summaries: Mapping[str, Sequence[RunSummary]]) -> list[str]:
    """Sentences, in the order in which a reader needs them."""
    ranked = standings(summaries)
    if not ranked:
        return ["No run logged a reward: nothing can be said about the arms."]
    return [
        _name_ends(ranked, summaries),
        _courses(ranked),
        *_incomplete(ranked, summaries),
        *_compare(ranked),
        *_few_runs(ranked),
        *_refiner(summaries),
    ]


def _name_ends(ranked: Sequence[Standing], summaries: Mapping[str, Sequence[RunSummary]]) -> str:
    items = [item for members in summaries.values() for item in members]
    windows = sorted({item.window for item in items if not math.isnan(item.reward_end)})
    span = f"{windows[0]}" if len(windows) == 1 else f"{windows[0]} to {windows[-1]}"
    plural = "" if windows == [1] else "s"
    ends = ", ".join(f"{item.label} ended at {_signed(item.end)}" for item in ranked)
    return f"Mean training reward over the last {span} step{plural}: {ends}."


def _courses(ranked: Sequence[Standing]) -> str:
    """How far each arm moved from its own start."""
    moves = []
    for item in ranked:
        change = item.end - item.start
        if math.isnan(item.scatter) or abs(change) <= item.scatter:
            moves.append(f"{item.label} stayed near its start ({_signed(item.start)})")
        else:
            moves.append(f"{item.label} {'gained' if change > 0 else 'lost'} {abs(change):.2f}")
    return f"Against their own first steps: {', '.join(moves)}."


def _incomplete(
    ranked: Sequence[Standing], summaries: Mapping[str, Sequence[RunSummary]]
) -> list[str]:
    sentences = []
    silent = [label_of(arm) for arm in summaries if arm not in {item.arm for item in ranked}]
    if silent:
        sentences.append(f"Without a logged reward, so not compared: {', '.join(silent)}.")
    unfinished = [
        f"{label_of(arm)} {item.steps} of {item.total_steps}"
        for arm, items in summaries.items()
        for item in items
        if item.total_steps is not None and item.steps < item.total_steps
    ]
    if unfinished:
        which = ", ".join(unfinished)
        sentences.append(f"Not at the end of their steps: {which}; compared as far as they got.")
    return sentences


def _compare(ranked: Sequence[Standing]) -> list[str]:
    """Every other arm against every baseline of its setting, whichever of them is ahead."""
    baselines = [item for item in ranked if item.arm.rpartition("/")[2] in BASELINES]
    others = [item for item in ranked if item not in baselines]
    return [
        _compare_two(other, baseline)
        for other in others
        for baseline in baselines
        if other.arm.rpartition("/")[0] == baseline.arm.rpartition("/")[0]
    ]


def _compare_two(other: Standing, baseline: Standing) -> str:
    gap = other.end - baseline.end
    better, worse = (other, baseline) if gap >= 0 else (baseline, other)
    if not told_apart(better, worse):
        return f"{other.label} and {baseline.label} are not told apart (difference {abs(gap):.2f})."
    if better is other:
        return f"{other.label} ended {gap:.2f} above {baseline.label}."
    return f"{other.label} did not help here: it ended {-gap:.2f} below {baseline.label}."


def _few_runs(ranked: Sequence[Standing]) -> list[str]:
    """How little the number of runs supports."""
    fewest = min(item.runs for item in ranked)
    if fewest == 1:
        if len(ranked) == 1:
            return ["One run: another seed may end elsewhere."]
        single = [item.label for item in ranked if item.runs == 1]
        whose = "each arm" if len(single) == len(ranked) else ", ".join(single)
        return [f"One run of {whose}: another seed may order the arms differently."]
    if fewest <= MOST_SEEDS_FOR_MIN_MAX:
        return [f"As few as {fewest} runs an arm: ranges that do not overlap are weak evidence."]
    return []


def _refiner(summaries: Mapping[str, Sequence[RunSummary]]) -> list[str]:
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


def _logged(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")

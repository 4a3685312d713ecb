"""What was seen, in plain words and no further than the data go.

An arm that was expected to win and did not is reported like any other. An arm is said to end above
another only if both have seeds and tests say so at a level that all comparisons of the report share
(`significance`); of single runs only what was seen is said.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from recipe.analysis.names import base_of, label_of, setting_of
from recipe.analysis.observations import refiner, signed_number, span, validations
from recipe.analysis.significance import LEVEL, Comparison, claims, compare, fewest_seeds
from recipe.analysis.summary import RunSummary

BASELINES = ("none", "static_kl")
LEVEL_WORDS = f"{LEVEL:.0%} level".replace("%", " %")


@dataclass(frozen=True)
class Standing:
    """An arm's reward: mean over its runs at the start and the end, and each run's end."""

    arm: str
    start: float
    end: float
    ends: tuple[float, ...]
    compared_to: int

    @property
    def label(self) -> str:
        return label_of(self.arm)


@dataclass(frozen=True)
class Verdict:
    """`answer` is three sentences at most, for a first screen: what was seen, whether it is an
    effect, how exact a validation is. `details` are all further ones.
    """

    answer: tuple[str, ...]
    details: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        return self.answer + self.details


def standings(summaries: Mapping[str, Sequence[RunSummary]]) -> list[Standing]:
    """Arms with a reward, best first."""
    found = []
    for arm, items in summaries.items():
        scored = [item for item in items if not math.isnan(item.reward_end)]
        if scored:
            ends = tuple(item.reward_end for item in scored)
            start = math.fsum(item.reward_start for item in scored) / len(scored)
            end = math.fsum(ends) / len(ends)
            found.append(Standing(arm, start, end, ends, scored[0].compared_to))
    return sorted(found, key=lambda item: -item.end)


def write_verdict(
    summaries: Mapping[str, Sequence[RunSummary]],
    unlike: Collection[frozenset[str]] = (),
) -> Verdict:
    """Sentences, in the order in which a reader needs them; pairs of arms in `unlike` differ in
    more than their constraint and are not compared.
    """
    ranked = standings(summaries)
    if not ranked:
        return Verdict(("No run logged a reward: nothing can be said about the arms.",), ())
    pairs = _pairs(ranked)
    alike = [pair for pair in pairs if frozenset(item.arm for item in pair) not in unlike]
    effect, differences = _compare(alike, ranked)
    return Verdict(
        answer=(_name_ends(ranked, summaries), effect, *validations(summaries)),
        details=(
            _courses(ranked),
            *differences,
            *_not_alike(pairs, unlike),
            *_incomplete(ranked, summaries),
            *refiner(summaries),
        ),
    )


def _name_ends(ranked: Sequence[Standing], summaries: Mapping[str, Sequence[RunSummary]]) -> str:
    items = [item for members in summaries.values() for item in members]
    windows = sorted({item.window for item in items if not math.isnan(item.reward_end)})
    steps = sorted({item.compared_to for item in ranked})
    ends = ", ".join(f"{item.label} {signed_number(item.end)}" for item in ranked)
    if windows == [1]:
        return f"Mean training reward at step {span(steps)}: {ends}."
    return (
        f"Mean training reward over the last {span(windows)} steps up to step {span(steps)}: "
        f"{ends}."
    )


def _pairs(ranked: Sequence[Standing]) -> list[tuple[Standing, Standing]]:
    """Every other arm with every baseline of its setting, whichever of them is ahead."""
    baselines = [item for item in ranked if base_of(item.arm) in BASELINES]
    return [
        (other, baseline)
        for other in ranked
        if other not in baselines
        for baseline in baselines
        if setting_of(other.arm) == setting_of(baseline.arm)
    ]


def _compare(
    pairs: Sequence[tuple[Standing, Standing]], ranked: Sequence[Standing]
) -> tuple[str, list[str]]:
    """The sentence on effects, and one on each comparison that could be tested."""
    results = [compare(first.ends, second.ends) for first, second in pairs]
    claimed = claims([result.p_value for result in results])
    tested = sum(result.p_value is not None for result in results)
    effects = [
        f"runs of {first.label} end {'above' if result.difference > 0 else 'below'} runs of "
        f"{second.label} (by {abs(result.difference):.2f} on average)"
        for (first, second), result, is_claim in zip(pairs, results, claimed, strict=True)
        if is_claim
    ]
    details = [
        _describe(first, second, result, is_claim)
        for (first, second), result, is_claim in zip(pairs, results, claimed, strict=True)
        if result.p_value is not None
    ]
    if effects:
        return f"At the {LEVEL_WORDS} over all comparisons: {'; '.join(effects)}.", details
    smallest = min((result.p_value for result in results if result.p_value is not None), default=1)
    return _no_effect(tested, smallest, pairs, ranked), details


def _no_effect(
    tested: int,
    smallest_p: float,
    pairs: Sequence[tuple[Standing, Standing]],
    ranked: Sequence[Standing],
) -> str:
    """Why nothing is claimed, and what it would take."""
    if len(ranked) == 1:
        runs = len(ranked[0].ends)
        return f"One arm, {_count(runs, 'run')}: there is nothing to compare it with."
    if not pairs:
        return "No arm here can be compared with a baseline (none or static KL) of its setting."
    needed = fewest_seeds(len(pairs))
    if not tested:
        return (
            "No comparison here has two runs of both arms, so no difference is shown to be more "
            f"than chance; it takes at least {needed} seeds of each arm."
        )
    fewest = min(min(len(first.ends), len(second.ends)) for first, second in pairs)
    words = _count(len(pairs), "comparison")
    shown = f"No difference in training reward is shown at the {LEVEL_WORDS}"
    if fewest < needed:
        return f"{shown}. With {words} it takes at least {needed} seeds of each arm."
    shared = "" if len(pairs) == 1 else f", which {words} share"
    return f"{shown}{shared}; the smallest p is {smallest_p:.2g}."


def _describe(first: Standing, second: Standing, result: Comparison, is_claim: bool) -> str:
    word = "shown" if is_claim else "not shown"
    return (
        f"{first.label} minus {second.label}: {signed_number(result.difference)} "
        f"({len(first.ends)} against {len(second.ends)} seeds, higher in "
        f"{100 * result.above:.0f} % of their pairs, p = {result.p_value:.2g}, {word} at the "
        f"{LEVEL_WORDS})."
    )


def _not_alike(
    pairs: Sequence[tuple[Standing, Standing]], unlike: Collection[frozenset[str]]
) -> list[str]:
    named = [
        f"{first.label} and {second.label}"
        for first, second in pairs
        if frozenset((first.arm, second.arm)) in unlike
    ]
    if not named:
        return []
    return [f"Not compared, since they differ in more than the constraint: {'; '.join(named)}."]


def _courses(ranked: Sequence[Standing]) -> str:
    """Where each arm began and ended."""
    moves = [
        f"{item.label} from {signed_number(item.start)} to {signed_number(item.end)}"
        for item in ranked
    ]
    return f"From the first steps to the last: {', '.join(moves)}."


def _incomplete(
    ranked: Sequence[Standing], summaries: Mapping[str, Sequence[RunSummary]]
) -> list[str]:
    """Arms that cannot be compared, and runs that ended early or went on alone."""
    sentences = []
    present = {item.arm for item in ranked}
    silent = [label_of(arm) for arm in summaries if arm not in present]
    if silent:
        sentences.append(f"Without a logged reward, so not compared: {', '.join(silent)}.")
    items = [(arm, item) for arm, members in summaries.items() for item in members]
    unfinished = [
        f"{label_of(arm)} {item.steps} of {item.total_steps}"
        for arm, item in items
        if item.total_steps is not None and item.steps < item.total_steps
    ]
    if unfinished:
        sentences.append(f"Not at the end of their steps: {', '.join(unfinished)}.")
    beyond = sorted({label_of(arm) for arm, item in items if item.steps > item.compared_to > 0})
    if beyond:
        sentences.append(
            f"Compared at steps that all runs of a setting have: what {', '.join(beyond)} did "
            "after them is in the curves alone."
        )
    return sentences


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

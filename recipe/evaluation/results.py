"""Verdicts to scores. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recipe.evaluation.judging import Judged
from recipe.evaluation.passk import Estimate, mean_estimate, pass_at_k

DIFFICULTIES = ("introductory", "interview", "competition")


@dataclass(frozen=True)
class Tier:
    """APPS scores of the problems of one difficulty.

    Attributes:
        strict: share of samples that pass every test, over problems.
        tests: average share of a problem's tests that a sample passes.
        verdicts: how many samples ended in each verdict.
        score: mean reward of the tier that training used.
    """

    difficulty: str
    problems: int
    strict: Estimate
    tests: Estimate
    verdicts: dict[str, int]
    score: float


@dataclass(frozen=True)
class Scores:
    """What a benchmark says of a model under one protocol.

    Attributes:
        fewest, most: samples of a problem.
        pass_at: by k.
        format: share of responses that hold a program, see `Judged.formed`.
        skill: share of those that are right; None if there is none. pass@1 = format · skill
            where all problems have as many samples.
        cut_off: share of responses that ended for their length.
    """

    benchmark: str
    protocol: str
    problems: int
    fewest: int
    most: int
    pass_at: dict[int, Estimate]
    format: Estimate
    skill: float | None
    cut_off: float
    tiers: tuple[Tier, ...] = ()


def score(benchmark: str, protocol: str, verdicts: Sequence[Judged], ks: Iterable[int]) -> Scores:
    """The scores of one benchmark under one protocol; k above the fewest samples are left out."""
    groups = by_problem(verdicts)
    counts = [len(group) for group in groups.values()]
    fewest = min(counts, default=0)
    return Scores(
        benchmark=benchmark,
        protocol=protocol,
        problems=len(groups),
        fewest=fewest,
        most=max(counts, default=0),
        pass_at={k: pass_estimate(groups, k) for k in ks if k <= fewest},
        format=mean_estimate(format_shares(groups)),
        skill=_ratio(sum(v.right for v in verdicts), sum(v.formed for v in verdicts)),
        cut_off=_ratio(sum(v.finish == "length" for v in verdicts), len(verdicts)) or 0.0,
        tiers=_tiers(groups) if any(v.difficulty for v in verdicts) else (),
    )


def by_problem(verdicts: Iterable[Judged]) -> dict[str, list[Judged]]:
    """Verdicts by problem, in the order in which the problems first occur."""
    groups: dict[str, list[Judged]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.problem_id, []).append(verdict)
    return groups


def pass_shares(groups: dict[str, list[Judged]], k: int) -> list[float]:
    """pass@k per problem."""
    return [pass_at_k(len(g), sum(v.right for v in g), k) for g in groups.values()]


def format_shares(groups: dict[str, list[Judged]]) -> list[float]:
    """The share of responses that hold a program, per problem."""
    return [_mean([v.formed for v in group]) for group in groups.values()]


def pass_estimate(groups: dict[str, list[Judged]], k: int) -> Estimate:
    """Mean pass@k over problems with its interval."""
    return mean_estimate(pass_shares(groups, k))


def _tiers(groups: dict[str, list[Judged]]) -> tuple[Tier, ...]:
    """By difficulty, APPS's own first in their order, then any others; last all together."""
    found = {group[0].difficulty for group in groups.values()}
    order = [name for name in DIFFICULTIES if name in found]
    order += sorted(found - set(DIFFICULTIES))
    parts = {
        name: {key: group for key, group in groups.items() if group[0].difficulty == name}
        for name in order
    }
    return (*(_tier(name or "(none)", part) for name, part in parts.items()), _tier("all", groups))


def _tier(name: str, groups: dict[str, list[Judged]]) -> Tier:
    verdicts = [verdict for group in groups.values() for verdict in group]
    tests = [
        _mean([v.passed / v.total if v.total else 0.0 for v in group]) for group in groups.values()
    ]
    return Tier(
        difficulty=name,
        problems=len(groups),
        strict=pass_estimate(groups, 1),
        tests=mean_estimate(tests),
        verdicts=dict(Counter(v.verdict for v in verdicts).most_common()),
        score=_mean([v.score for v in verdicts]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None

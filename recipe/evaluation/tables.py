"""Scores as text: tables in Markdown, in percent, with 95 % intervals."""

import math
from collections.abc import Sequence

from recipe.evaluation.passk import Estimate
from recipe.evaluation.results import Scores, Tier


def percent(estimate: Estimate) -> str:
    """`20.7 [15.2, 27.5]`."""
    if math.isnan(estimate.value):
        return "–"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def signed(estimate: Estimate) -> str:
    """`+3.1 [-1.2, +7.4]`, in points of a percentage."""
    if math.isnan(estimate.value):
        return "–"
    low, high = points(estimate.low), points(estimate.high)
    return f"{points(estimate.value)} [{low}, {high}]"


def points(value: float) -> str:
    """A difference of shares, signed, in points; what rounds to zero is `0.0`."""
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of one width each."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def scores_table(scores: Sequence[Scores]) -> str:
    """One line a benchmark and protocol."""
    ks = sorted({k for score in scores for k in score.pass_at})
    heads = ["benchmark", "protocol", "problems", "samples"]
    heads += [*(f"pass@{k} %" for k in ks), "format %", "skill %", "cut off %"]
    return table(heads, [_score_row(score, ks) for score in scores])


def tiers_table(tiers: Sequence[Tier]) -> str:
    """APPS by difficulty."""
    heads = ["difficulty", "problems", "strict accuracy %", "tests passed %", "mean score"]
    heads.append("verdicts")
    rows = [
        [
            tier.difficulty,
            str(tier.problems),
            percent(tier.strict),
            percent(tier.tests),
            f"{tier.score:.2f}",
            ", ".join(f"{count} {verdict}" for verdict, count in tier.verdicts.items()),
        ]
        for tier in tiers
    ]
    return table(heads, rows)


def _score_row(score: Scores, ks: Sequence[int]) -> list[str]:
    samples = str(score.fewest) if score.fewest == score.most else f"{score.fewest}–{score.most}"
    nothing = Estimate(math.nan, math.nan, math.nan)
    return [
        score.benchmark,
        score.protocol,
        str(score.problems),
        samples,
        *(percent(score.pass_at.get(k, nothing)) for k in ks),
        percent(score.format),
        "–" if score.skill is None else f"{100 * score.skill:.1f}",
        f"{100 * score.cut_off:.1f}",
    ]

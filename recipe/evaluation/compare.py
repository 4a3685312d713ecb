"""Several models side by side, in the form of the paper's table 1, and where a gain comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.judging import Judged
from recipe.evaluation.kinds import Benchmark
from recipe.evaluation.passk import Estimate, paired_difference, split_gain
from recipe.evaluation.protocols import PROTOCOLS
from recipe.evaluation.results import (
    by_problem,
    format_shares,
    pass_estimate,
    pass_shares,
    score,
)
from recipe.evaluation.tables import percent, points, signed, table, tiers_table

Evaluations = Mapping[str, Mapping[tuple[str, str], Sequence[Judged]]]
"""Verdicts by (benchmark, protocol), by arm; the first arm is what the others are compared with."""


@dataclass(frozen=True)
class Gain:
    """What an arm has over the first one on the problems that both answered.

    Attributes:
        problems: how many those are.
        passes: the difference of pass@1, problem by problem, with its interval.
        format, skill: its two parts, see `split_gain`.
    """

    arm: str
    benchmark: str
    problems: int
    passes: Estimate
    format: float
    skill: float


def compare(arms: Evaluations, k: int) -> str:
    """All tables as text, one section a protocol.

    Raises:
        EvaluationError: no arm has k samples of each problem anywhere.
    """
    sections = [_section(arms, protocol, k) for protocol in PROTOCOLS]
    found = [section for section in sections if section]
    if not found:
        raise EvaluationError(f"--pass-at {k}: no folder has so many samples of every problem")
    return "\n\n".join(found)


def check_same_problems(
    arms: Evaluations, contents: Mapping[str, Mapping[str, str | None]]
) -> None:
    """Refuse to put scores over different problems side by side.

    `contents` are the hashes of the benchmarks' problems by arm, None if not recorded.

    Raises:
        EvaluationError: two arms were evaluated on different problems of a benchmark, or on
            different editions of it.
    """
    for benchmark, protocol in dict.fromkeys(
        key for evaluated in arms.values() for key in evaluated
    ):
        groups = _groups(arms, benchmark, protocol)
        sizes = {arm: len(group) for arm, group in groups.items()}
        _check_editions(benchmark, {arm: contents[arm].get(benchmark) for arm in groups})
        if len({frozenset(group) for group in groups.values()}) > 1:
            shown = ", ".join(f"{arm} {size}" for arm, size in sizes.items())
            common = len(set.intersection(*(set(group) for group in groups.values())))
            raise EvaluationError(
                f"{benchmark}, {protocol}: not the same problems ({shown}; {common} in common), so "
                "scores do not compare; evaluate the same problems, or give --common to compare on "
                "those that all have"
            )


def on_common_problems(arms: Evaluations) -> dict[str, dict[tuple[str, str], list[Judged]]]:
    """The verdicts on the problems that every arm has that has the benchmark and protocol."""
    found: dict[str, dict[tuple[str, str], list[Judged]]] = {arm: {} for arm in arms}
    for key in dict.fromkeys(key for evaluated in arms.values() for key in evaluated):
        groups = _groups(arms, *key)
        common = set.intersection(*(set(group) for group in groups.values()))
        for arm in groups:
            found[arm][key] = [v for v in arms[arm][key] if v.problem_id in common]
    return found


def _groups(arms: Evaluations, benchmark: str, protocol: str) -> dict[str, dict[str, list[Judged]]]:
    """Each arm's verdicts by problem, of the arms that have this benchmark and protocol."""
    key = (benchmark, protocol)
    return {arm: by_problem(evaluated[key]) for arm, evaluated in arms.items() if key in evaluated}


def _check_editions(benchmark: str, hashes: Mapping[str, str | None]) -> None:
    known = {arm: digest for arm, digest in hashes.items() if digest is not None}
    if len(set(known.values())) > 1:
        shown = ", ".join(f"{arm} {_short(digest)}" for arm, digest in known.items())
        raise EvaluationError(
            f"{benchmark}: the files hold different problems or tests ({shown}), so scores do not "
            "compare; evaluate all models with one file"
        )


def unequal(conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each condition that is not the same in all arms that have it."""
    keys = dict.fromkeys(key for known in conditions.values() for key in known)
    lines = []
    for key in keys:
        values = {arm: known[key] for arm, known in conditions.items() if key in known}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{arm} {_short(value)}" for arm, value in values.items())
            lines.append(f"Not the same for all, so scores do not compare: {key} ({shown})")
    return lines


def _short(value: Any) -> str:
    return str(value)[:12]


def gain(arm: str, benchmark: str, before: Sequence[Judged], after: Sequence[Judged]) -> Gain:
    """What `after` has over `before`."""
    old, new = by_problem(before), by_problem(after)
    common = [problem for problem in old if problem in new]
    old = {problem: old[problem] for problem in common}
    new = {problem: new[problem] for problem in common}
    pass_0, pass_1 = pass_shares(old, 1), pass_shares(new, 1)
    if not common:
        nothing = paired_difference([], [])
        return Gain(arm, benchmark, 0, nothing, nothing.value, nothing.value)
    count = len(common)
    split = split_gain(
        sum(format_shares(old)) / count,
        sum(pass_0) / count,
        sum(format_shares(new)) / count,
        sum(pass_1) / count,
    )
    difference = paired_difference(pass_0, pass_1)
    return Gain(arm, benchmark, count, difference, split.format, split.skill)


def _section(arms: Evaluations, protocol: str, k: int) -> str:
    """The tables of one protocol; empty if nothing was evaluated under it."""
    benchmarks = [
        str(name)
        for name in Benchmark
        if any((name, protocol) in evaluated for evaluated in arms.values())
    ]
    rows = [[arm, *(_cell(evaluated.get((name, protocol)), k) for name in benchmarks)]
            for arm, evaluated in arms.items()]  # fmt: skip
    if not any(cell != "–" for row in rows for cell in row[1:]):
        return ""
    heads = [f"pass@{k} %", *benchmarks]
    parts = [f"## {protocol}", table(heads, rows)]
    gains = _gains(arms, protocol, benchmarks)
    if gains:
        parts.append(_gains_table(gains, next(iter(arms))))
    parts += _difficulties(arms, protocol, benchmarks)
    return "\n\n".join(parts)


def _cell(verdicts: Sequence[Judged] | None, k: int) -> str:
    groups = by_problem(verdicts or ())
    if not groups or min(map(len, groups.values())) < k:
        return "–"
    return percent(pass_estimate(groups, k))


def _gains(arms: Evaluations, protocol: str, benchmarks: Sequence[str]) -> list[Gain]:
    (_, first), *others = arms.items()
    return [
        gain(arm, name, first[name, protocol], evaluated[name, protocol])
        for name in benchmarks
        for arm, evaluated in others
        if (name, protocol) in first and (name, protocol) in evaluated
    ]


def _gains_table(gains: Sequence[Gain], base: str) -> str:
    heads = ["benchmark", f"gain over {base}", "problems", "pass@1, points", "format", "skill"]
    rows = [
        [
            gain.benchmark,
            gain.arm,
            str(gain.problems),
            signed(gain.passes),
            points(gain.format) if gain.problems else "–",
            points(gain.skill) if gain.problems else "–",
        ]
        for gain in gains
    ]
    return table(heads, rows)


def _difficulties(arms: Evaluations, protocol: str, benchmarks: Sequence[str]) -> list[str]:
    parts = []
    for name in benchmarks:
        for arm, evaluated in arms.items():
            tiers = score(name, protocol, evaluated.get((name, protocol), ()), (1,)).tiers
            if tiers:
                parts.append(f"### {arm}: {name} by difficulty\n\n{tiers_table(tiers)}")
    return parts

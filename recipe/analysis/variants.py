"""Runs of one arm that are configured otherwise told apart, and arms that differ in more than their
constraint named.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from recipe.analysis.configuration import (
    INCIDENTAL,
    beyond_the_constraint,
    differences,
    matches,
    number_text,
    value_of,
)
from recipe.analysis.names import base_of, label_of
from recipe.analysis.records import Finding
from recipe.analysis.unread_keys import default_of, is_read

if TYPE_CHECKING:
    from recipe.analysis.runs import Run

MAX_PAIRS = 3
MAX_VARIANT = 40
MAX_LISTED = 8


def with_variants(runs: Sequence["Run"]) -> tuple[tuple["Run", ...], tuple[Finding, ...]]:
    """Runs of one arm that differ in configuration told apart, each difference named; and a finding
    where that cannot be checked.
    """
    findings: list[Finding] = []
    variants: dict[int, str] = {}
    for (_, arm), members in _by_arm(runs).items():
        known = [index for index in members if runs[index].configuration]
        if len(members) > 1 and len(known) < len(members):
            findings.append(
                Finding(
                    None,
                    f"{len(members) - len(known)} of {len(members)} runs of {arm} have no readable "
                    "config.yaml: taken for seeds of one arm without a check",
                )
            )
        groups = _alike([runs[index] for index in known])
        if len(groups) < 2:
            continue
        keys = _varying(groups)
        findings.append(Finding(None, _refusal(arm, keys, groups)))
        for number, group in enumerate(groups, start=1):
            variant = _name(keys, group[0], number)
            variants |= {index: variant for index in known if runs[index] in group}
    findings += _of_other_versions(runs)
    named = (replace(run, variant=variants.get(index, "")) for index, run in enumerate(runs))
    return tuple(named), tuple(findings)


def _of_other_versions(runs: Sequence["Run"]) -> list[Finding]:
    """The keys that only some configurations have and that make no difference."""
    known = [run for run in runs if run.configuration]
    holders: dict[str, list[Run]] = {}
    for run in known:
        for key in run.configuration:
            holders.setdefault(key, []).append(run)
    harmless = sorted(
        f"{key}={value_of(having[0], key)}"
        for key, having in holders.items()
        if len(having) < len(known)
        and not matches(key, INCIDENTAL)
        and (not any(is_read(key, run.configuration) for run in known) or _at_default(key, having))
    )
    if not harmless:
        return []
    more = len(harmless) - MAX_LISTED
    listed = ", ".join(harmless[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
    words = "keys at their defaults, or not read by these runs, that not every configuration has"
    return [Finding(None, f"{words}: {listed}; taken for no difference")]


def _at_default(key: str, runs: Sequence["Run"]) -> bool:
    default = number_text(default_of(key))
    return all(number_text(value_of(run, key)) == default for run in runs)


def _by_arm(runs: Sequence["Run"]) -> dict[tuple[str, str], list[int]]:
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, run in enumerate(runs):
        members[run.setting, run.arm].append(index)
    return members


def _alike(runs: Sequence["Run"]) -> list[list["Run"]]:
    """Runs in groups whose members agree with the group's first."""
    groups: list[list[Run]] = []
    for run in runs:
        home = next((group for group in groups if not differences(group[0], run)), None)
        groups.append([run]) if home is None else home.append(run)
    return groups


def _varying(groups: Sequence[Sequence["Run"]]) -> list[str]:
    """Keys in which any group differs from the first, the most telling ones first."""
    first = groups[0][0]
    keys = {key for group in groups[1:] for key in differences(first, group[0])}
    return sorted(keys, key=lambda key: (not key.startswith("constraint."), key))


def _refusal(arm: str, keys: Sequence[str], groups: Sequence[Sequence["Run"]]) -> str:
    named = "; ".join(
        f"{key} ({', '.join(dict.fromkeys(value_of(group[0], key) for group in groups))})"
        for key in keys
    )
    return f"runs of {arm} differ in {named}: shown apart and not averaged"


def _name(keys: Sequence[str], run: "Run", number: int) -> str:
    """The values in which the run differs; if they are too many or too long to be read in a legend,
    the group's number and what fits.
    """
    last = [key.rpartition(".")[2] for key in keys]
    parts = [
        f"{short if last.count(short) == 1 else key}={value_of(run, key)}"
        for key, short in zip(keys, last, strict=True)
    ]
    whole = ", ".join(parts)
    if len(whole) <= MAX_VARIANT:
        return whole
    first = parts[0] if len(parts[0]) <= MAX_VARIANT else f"{parts[0][: MAX_VARIANT - 1]}…"
    return f"variant {number}, {first}" + (f" and {len(parts) - 1} more" if parts[1:] else "")


def unlike_arms(groups: Mapping[str, Sequence["Run"]]) -> dict[frozenset[str], list[str]]:
    """Pairs of arms of one setting that differ in more than their constraint, with the keys; arms
    whose configuration is unknown are in none of them.
    """
    firsts = {
        arm: next((run for run in runs if run.configuration), None) for arm, runs in groups.items()
    }
    known = [(arm, run) for arm, run in firsts.items() if run is not None]
    found = {}
    for index, (arm, run) in enumerate(known):
        for other, other_run in known[:index]:
            keys = beyond_the_constraint(differences(other_run, run))
            if run.setting == other_run.setting and keys:
                found[frozenset((other, arm))] = keys
    return found


def unlike_findings(groups: Mapping[str, Sequence["Run"]]) -> tuple[Finding, ...]:
    """One finding for each set of keys in which arms differ beside their constraint; that variants
    of one arm differ is said where they are told apart.
    """
    pairs: dict[str, list[str]] = {}
    for arms, keys in unlike_arms(groups).items():
        first, second = (arm for arm in groups if arm in arms)
        if base_of(first) != base_of(second):
            pair = f"{label_of(first)} and {label_of(second)}"
            pairs.setdefault(", ".join(keys), []).append(pair)
    return tuple(
        Finding(None, f"{_some_of(pair)} also differ in {keys}: not compared")
        for keys, pair in pairs.items()
    )


def _some_of(pairs: Sequence[str]) -> str:
    more = len(pairs) - MAX_PAIRS
    return "; ".join(pairs[:MAX_PAIRS]) + (f"; and {more} more pairs" if more > 0 else "")

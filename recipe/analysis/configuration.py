"""What a run was configured with, and in what two runs differ.

Runs are seeds of one arm only if their configurations agree in everything but the seed and what
cannot change a result (folders, names, logging). Runs of one arm that differ in more are shown as
variants, each under the values in which it differs, and never averaged.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recipe.analysis.names import label_of
from recipe.analysis.printable import printable
from recipe.analysis.records import Finding

if TYPE_CHECKING:
    from recipe.analysis.runs import Run

Configuration = Mapping[str, str]
"""Dotted keys and their values as text; empty if it is unknown."""

Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
INCIDENTAL = (
    *("run.*", "*seed", "*.experiment_name", "*.project_name", "*_dir", "*.logger*"),
    *("*profiler*", "*prometheus*", "*port", "ray_kwargs.*", "skip.*", "monitor.*"),
    *("trainer.save_freq", "trainer.test_freq", "trainer.val_before_train", "trainer.resume*"),
    *("trainer.max_*_ckpt_to_keep", "trainer.log_val_generations", "*.checkpoint.*"),
    *("trainer.esi_redundant_time", "*.log_*", "*hostname*", "*timeout*"),
)
"""Keys that may differ between the seeds of one arm."""
ARM_DEFINING = (
    *("constraint.*", "refiner.*", "algorithm.use_kl_in_reward", "algorithm.kl_ctrl.*"),
    *("algorithm.kl_penalty", "*.use_kl_loss", "*.kl_loss_*", "*.policy_loss.loss_mode"),
)
"""Keys in which arms differ on purpose: the constraint and what it needs."""
REFINED_ESTIMATOR = "refined_"
"""How the names of the estimators begin that take the constraint's penalty from the advantages."""
RECORDED = {"kind": "constraint.kind", "inject": "constraint.inject", "lambda": "constraint.lambda"}
"""What run.json says after defaults were filled in, which the configuration leaves null."""
MAX_NAMED = 3
MAX_VALUE = 40


def read_configuration(
    path: Path, info: Mapping[str, Any]
) -> tuple[Configuration, tuple[Finding, ...]]:
    """The flattened configuration of a run folder; empty, with a finding, if it is missing or
    broken. Scalars stay text, since YAML 1.1 reads a bare `off` as false.
    """
    file = path / "config.yaml"
    try:
        content = yaml.load(file.read_text(encoding="utf-8", errors="replace"), Loader)
    except OSError as error:
        return {}, (Finding(file, f"cannot be read ({error.strerror}): configuration unknown"),)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}, (Finding(file, "is not readable YAML: configuration unknown"),)
    if not isinstance(content, dict):
        return {}, (Finding(file, "holds no keys: configuration unknown"),)
    found = dict(_flatten(content, ""))
    if "constraint.kind" in found:
        found |= {
            RECORDED[key]: number_text(info[key]) for key in RECORDED if info.get(key) is not None
        }
    return found, ()


def _flatten(value: object, key: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{key}.{index}")
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield printable(key), printable(text)


def number_text(value: object) -> str:
    """A number, or the text of one, in its shortest form; other text as it is."""
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)


def differences(a: "Run", b: "Run") -> dict[str, tuple[str, str]]:
    """Every key that matters and in which two configured runs differ, with both values."""
    keys = sorted({*a.configuration, *b.configuration})
    return {
        key: (_value(a, key), _value(b, key))
        for key in keys
        if not _same(a, b, key) and not _matches(key, INCIDENTAL)
    }


def beyond_the_constraint(found: Mapping[str, object]) -> list[str]:
    """Of the keys in which two arms differ, those that are not the constraint's."""
    return [key for key in found if not _matches(key, ARM_DEFINING)]


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _value(run: "Run", key: str) -> str:
    return run.configuration.get(key, "absent")


def _same(a: "Run", b: "Run", key: str) -> bool:
    """Equal text, equal numbers, the same estimator with or without the penalty, or paths that lie
    in the same place as seen from the run.
    """
    first, second = (_value(run, key).removeprefix(REFINED_ESTIMATOR) for run in (a, b))
    if first == second or number_text(first) == number_text(second):
        return True
    if not (first.startswith("/") and second.startswith("/")):
        return False
    return os.path.relpath(first, _home(a)) == os.path.relpath(second, _home(b))


def _home(run: "Run") -> str:
    return run.configuration.get("run.dir") or str(run.path.absolute())


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
        for group in groups:
            variant = _name(keys, group[0])
            variants |= {index: variant for index in known if runs[index] in group}
    named = (replace(run, variant=variants.get(index, "")) for index, run in enumerate(runs))
    return tuple(named), tuple(findings)


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
        f"{key} ({', '.join(dict.fromkeys(_value(group[0], key) for group in groups))})"
        for key in keys
    )
    return f"runs of {arm} differ in {named}: shown apart and not averaged"


def _name(keys: Sequence[str], run: "Run") -> str:
    short = Counter(key.rpartition(".")[2] for key in keys)
    parts = []
    for key in keys[:MAX_NAMED]:
        last = key.rpartition(".")[2]
        value = _value(run, key)
        value = value if len(value) <= MAX_VALUE else f"…{value[-MAX_VALUE:]}"
        parts.append(f"{last if short[last] == 1 else key}={value}")
    more = len(keys) - MAX_NAMED
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


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
    """One finding for each set of keys in which arms differ beside their constraint."""
    pairs: dict[str, list[str]] = {}
    for arms, keys in unlike_arms(groups).items():
        words = " and ".join(label_of(arm) for arm in groups if arm in arms)
        pairs.setdefault(", ".join(keys), []).append(words)
    return tuple(
        Finding(None, f"{'; '.join(words)} also differ in {keys}: not compared")
        for keys, words in pairs.items()
    )

"""λ and filter ablations: runs that differ in one alone (paper, figure 7)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recipe.analysis.curves import curves_sheet
from recipe.analysis.derived import UNCONSTRAINED
from recipe.analysis.episodes import is_number
from recipe.analysis.panels import CROSS_ENTROPY, KL, REWARD, VALIDATION
from recipe.analysis.records import Finding
from recipe.analysis.runs import Run
from recipe.analysis.sheets import Sheet

PANELS = (REWARD, VALIDATION, KL, CROSS_ENTROPY)
BLOCK = "constraint:"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Constraint:
    """The keys of a run's constraint that ablations vary, as text; "unknown" where not recorded."""

    setting: str
    kind: str
    inject: str
    lambda_: str
    filter: str


@dataclass(frozen=True)
class Ablation:
    """`groups` are runs by the value of `key` that they have; runs without constraint come first
    under their arm's name.
    """

    key: str
    where: str
    groups: Mapping[str, Sequence[Run]]


def constraint_of(run: Run) -> tuple[Constraint, tuple[Finding, ...]]:
    """The constraint of a run, from its run.json and, where that is silent, its config.yaml."""
    config, findings = read_constraint(run.path / "config.yaml")
    known = config | {key: value for key, value in run.info.items() if value is not None}
    return (
        Constraint(
            setting=run.setting,
            kind=str(known.get("kind", UNKNOWN)),
            inject=str(known.get("inject", UNKNOWN)),
            lambda_=_number(known.get("lambda")),
            filter=str(known.get("filter", UNKNOWN)),
        ),
        findings,
    )


def _number(value: object) -> str:
    """A number, or the text of one, in its shortest form."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return UNKNOWN
    return f"{number:g}" if is_number(number) else UNKNOWN


def read_constraint(path: Path) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """The block `constraint` of a configuration; the rest, a thousand lines of verl's, is skipped.

    A file that is absent, or broken in that block, gives nothing and a finding.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return {}, (Finding(path, f"cannot be read ({error.strerror}): filter unknown"),)
    start = lines.index(BLOCK) if BLOCK in lines else len(lines)
    ends = (i for i, line in enumerate(lines[start + 1 :], start + 1) if line[:1] not in ("", " "))
    try:
        text = "\n".join(lines[start : next(ends, len(lines))])
        # Scalars stay text: YAML 1.1 reads a bare `off` as false.
        block = yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError:
        block = None
    content = block.get("constraint") if isinstance(block, dict) else None
    if not isinstance(content, dict):
        return {}, (Finding(path, "has no readable block 'constraint': filter unknown"),)
    return content, ()


def find_ablations(runs: Sequence[Run]) -> tuple[tuple[Ablation, ...], tuple[Finding, ...]]:
    """Every group of dynamic runs that differ in λ alone, or in the filter alone."""
    known = [(run, *constraint_of(run)) for run in runs]
    findings = tuple(finding for _, _, found in known for finding in found)
    dynamic = [(run, constraint) for run, constraint, _ in known if constraint.kind == "dynamic"]
    plain = [run for run, constraint, _ in known if run.arm == UNCONSTRAINED]
    ablations: list[Ablation] = []
    for key, others in (("lambda_", "filter"), ("filter", "lambda_")):
        alike: dict[tuple[str, ...], list[tuple[Run, Constraint]]] = {}
        for run, constraint in dynamic:
            fixed = (constraint.setting, constraint.inject, getattr(constraint, others))
            alike.setdefault(fixed, []).append((run, constraint))
        for (setting, inject, other), members in sorted(alike.items()):
            values = {getattr(constraint, key) for _, constraint in members} - {UNKNOWN}
            if len(values) > 1:
                where = _words(setting, inject, others, other)
                baseline = [run for run in plain if run.setting == setting]
                groups = _by_value(key, values, members)
                if baseline:
                    groups = {UNCONSTRAINED: baseline, **groups}
                ablations.append(Ablation(key.rstrip("_"), where, groups))
    return tuple(ablations), findings


def _by_value(
    key: str, values: Iterable[str], members: Sequence[tuple[Run, Constraint]]
) -> dict[str, list[Run]]:
    """Runs by "λ = 0.1", ascending, or by "filter: better"."""
    ordered = sorted(values, key=float) if key == "lambda_" else sorted(values)
    form = "λ = {}" if key == "lambda_" else "filter: {}"
    return {
        form.format(value): [run for run, item in members if getattr(item, key) == value]
        for value in ordered
    }


def _words(setting: str, inject: str, key: str, value: str) -> str:
    name = "λ" if key == "lambda_" else key
    return ", ".join([*([setting] if setting else []), f"inject: {inject}", f"{name}: {value}"])


def ablation_sheets(ablations: Sequence[Ablation]) -> tuple[Sheet, ...]:
    """One figure an ablation."""
    return tuple(
        curves_sheet(
            [run for runs in item.groups.values() for run in runs],
            PANELS,
            f"ablation-{item.key}-{number}",
            f"{'λ' if item.key == 'lambda' else 'Filter'} ablation ({item.where})",
            "Runs that differ in this key alone.",
            item.groups,
        )
        for number, item in enumerate(ablations, start=1)
    )


def absent_ablations(ablations: Sequence[Ablation]) -> tuple[str, ...]:
    """What a reader is told where there is nothing to draw."""
    keys = {item.key for item in ablations}
    return tuple(
        f"No two of these runs differ in {word} alone: nothing to draw. "
        f"For it, train with {key}=… at several values."
        for name, word, key in (
            ("lambda", "λ", "constraint.lambda"),
            ("filter", "the filter", "constraint.filter"),
        )
        if name not in keys
    )

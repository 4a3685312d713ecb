"""The metrics of a run, read as they are found: torn lines, repeated steps, odd values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.analysis.episodes import is_number, is_step
from recipe.analysis.printable import printable
from recipe.analysis.records import Finding, condense, read_jsonl

MOST_NAMES = 3
VALIDATION = "val-"
"""How the names of verl's validation metrics start."""


@dataclass(frozen=True)
class Series:
    """One metric of one run: `steps` [N] ascending and distinct, `values` [N] finite."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


def read_metrics(path: Path) -> tuple[tuple[int, ...], dict[str, Series], tuple[Finding, ...]]:
    """Steps, series by metric name and findings of a `metrics.jsonl`; of a repeated step the last
    line wins. The validation that verl makes when a run is resumed belongs to the step before.
    """
    by_step: dict[int, dict[str, Any]] = {}
    problems: list[tuple[int, str]] = []
    trained: set[int] = set()
    repeated: set[int] = set()
    try:
        for line in read_jsonl(path):
            if line.problem is not None:
                problems.append((line.number, line.problem))
            if line.record is None:
                continue
            step, data = line.record.get("step"), line.record.get("data")
            if not is_step(step) or not isinstance(data, dict):
                problems.append((line.number, "without step and data; ignored"))
                continue
            if all(name.startswith(VALIDATION) for name in data):
                by_step[step] = by_step.get(step, {}) | data
                continue
            repeated.update({step} & trained)
            trained.add(step)
            by_step[step] = data
    except FileNotFoundError:
        return (), {}, (Finding(path, "missing: no curves from this run"),)
    except OSError as error:
        return (), {}, (Finding(path, f"cannot be read ({error.strerror})"),)
    steps = tuple(sorted(by_step))
    series, series_findings = _to_series(path, by_step)
    findings = condense(path, problems) + _step_findings(path, steps, repeated) + series_findings
    return steps, series, findings


def _step_findings(path: Path, steps: Sequence[int], repeated: set[int]) -> tuple[Finding, ...]:
    findings = []
    if not steps:
        findings.append(Finding(path, "holds no step; no curves from this run"))
    if repeated:
        findings.append(
            Finding(
                path, f"{name_steps(repeated)} repeated after a resume; the last writing is used"
            )
        )
    gaps = [(a + 1, b - 1) for a, b in pairwise(steps) if b > a + 1]
    if gaps:
        findings.append(Finding(path, f"{_name_spans(gaps)} absent; lines are drawn across"))
    return tuple(findings)


def name_steps(steps: Iterable[int]) -> str:
    """`{3, 4, 5, 9}` as "steps 3-5, 9"."""
    ordered = sorted(steps)
    starts = [step for step in ordered if step - 1 not in ordered]
    ends = [step for step in ordered if step + 1 not in ordered]
    return _name_spans(list(zip(starts, ends, strict=True)))


def _name_spans(spans: Sequence[tuple[int, int]]) -> str:
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in spans]
    single = len(spans) == 1 and spans[0][0] == spans[0][1]
    return ("step " if single else "steps ") + ", ".join(parts)


def _to_series(
    path: Path, by_step: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[str, Series], tuple[Finding, ...]]:
    points: dict[str, list[tuple[int, float]]] = {}
    not_finite: dict[str, list[int]] = {}
    for step in sorted(by_step):
        for name, value in by_step[step].items():
            if is_number(value):
                points.setdefault(name, []).append((step, float(value)))
            elif value is None or isinstance(value, float):
                not_finite.setdefault(name, []).append(step)
    series = {
        printable(name): Series(
            np.array([s for s, _ in pairs], dtype=np.int64), np.array([v for _, v in pairs])
        )
        for name, pairs in points.items()
    }
    return series, _name_not_finite(path, not_finite)


def _name_not_finite(path: Path, steps: Mapping[str, Sequence[int]]) -> tuple[Finding, ...]:
    """One finding for all metrics: a diverged run has hundreds of them."""
    if not steps:
        return ()
    if len(steps) == 1:
        ((name, at),) = steps.items()
        message = f"{printable(name)} is not a finite number at {name_steps(at)}; left out there"
        return (Finding(path, message),)
    listed = sorted(steps)
    named = ", ".join(printable(name) for name in listed[:MOST_NAMES])
    more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
    anywhere = name_steps({step for found in steps.values() for step in found})
    message = f"{len(listed)} metrics are not finite numbers at some of {anywhere}; left out there"
    return (Finding(path, f"{message}: {named}{more}"),)

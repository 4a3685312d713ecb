"""What the runs of a study say: the outcome by arm, seed and step, and the comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipe.analysis.names import label_of
from recipe.analysis.runs import Run, RunSet, choose_metric, load_runs
from recipe.analysis.significance import claims
from recipe.study.pack import verdicts_of
from recipe.study.paired import PairedDifference, paired_difference
from recipe.study.plan import Study


@dataclass(frozen=True)
class Compared:
    """One comparison of a family; `claimed` if it holds at the family's level (Holm 1979).

    Without two common seeds `result` has no p, and without any it is None.
    """

    family: str
    first: str
    second: str
    result: PairedDifference | None
    claimed: bool

    @property
    def label(self) -> str:
        """Which arm minus which."""
        return f"{label_of(self.first)} − {label_of(self.second)}"


@dataclass(frozen=True)
class Results:
    """The finished runs of a study by arm, in the order of its file, and what else was found.

    `folder` holds the runs; `verdicts` are those on held-out problems, by run folder and step.
    """

    study: Study
    folder: Path
    found: RunSet
    runs: Mapping[str, tuple[Run, ...]]
    unfinished: tuple[Run, ...]
    verdicts: Mapping[Path, Mapping[int, Mapping[str, int]]]

    def metric(self, pattern: str) -> str | None:
        """The metric's name in the runs."""
        return choose_metric([run for runs in self.runs.values() for run in runs], [pattern])

    def values(self, arm: str, pattern: str, step: int) -> dict[int, float]:
        """The metric at a step by seed, of the runs that logged it there."""
        name = self.metric(pattern)
        found = {}
        for run in self.runs.get(arm, ()):
            series = run.metrics.get(name) if name is not None else None
            if series is not None and run.seed is not None and step in series.steps:
                found[run.seed] = float(series.values[series.steps == step][0])
        return found

    def outcome(self, arm: str) -> dict[int, float]:
        """The outcome at the last step by seed."""
        return self.values(arm, self.study.outcome, self.study.steps)

    def outcome_steps(self) -> list[int]:
        """The steps at which the outcome was measured in any run."""
        name = self.metric(self.study.outcome)
        return sorted(
            {
                int(step)
                for runs in self.runs.values()
                for run in runs
                if name is not None and name in run.metrics
                for step in run.metrics[name].steps
            }
        )

    def verdict_shares(self, arm: str, step: int) -> dict[str, float]:
        """Mean share over the arm's runs of each verdict on held-out problems."""
        shares = []
        for run in self.runs.get(arm, ()):
            counts = self.verdicts[run.path].get(step, {})
            total = sum(counts.values())
            if total:
                shares.append({name: count / total for name, count in counts.items()})
        names = sorted({name for one in shares for name in one})
        return {name: float(np.mean([one.get(name, 0.0) for one in shares])) for name in names}


def read_results(study: Study, runs: Path) -> Results:
    """Read the study's run folders below `runs`, in whatever state they are."""
    folders = [runs / arm / f"seed{seed}" for arm in study.arms for seed in study.seeds_of(arm)]
    found = load_runs([folder for folder in folders if folder.exists()])
    done = [run for run in found.runs if run.steps and run.steps[-1] >= study.steps]
    by_arm = {arm: tuple(run for run in done if run.arm == arm) for arm in study.arms}
    return Results(
        study=study,
        folder=runs,
        found=found,
        runs={arm: members for arm, members in by_arm.items() if members},
        unfinished=tuple(run for run in found.runs if run not in done),
        verdicts={run.path: verdicts_of(run.path) for run in done},
    )


def compare_all(results: Results) -> list[Compared]:
    """Every comparison of the file, family by family."""
    return [one for family in results.study.families for one in compare_family(results, family)]


def compare_family(results: Results, family: str) -> list[Compared]:
    """The comparisons of one family, which share its level by Holm's procedure."""
    pairs = results.study.families[family]
    found = [
        paired_difference(results.outcome(first), results.outcome(second))
        for first, second in pairs
    ]
    claimed = claims([one.p_value if one else None for one in found], results.study.level)
    return [
        Compared(family, first, second, result, is_claimed)
        for (first, second), result, is_claimed in zip(pairs, found, claimed, strict=True)
    ]

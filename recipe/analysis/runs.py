"""Run folders, read as they are found: whole, partial, killed, resumed or still being written.

A run folder holds `run.json`, `metrics.jsonl`, `episodes.jsonl` and `config.yaml`. What is missing
or broken in it never stops a report: it is worked around and listed in `Run.findings`.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from recipe.analysis.configuration import read_configuration
from recipe.analysis.digest_reader import DigestReader
from recipe.analysis.episodes import (
    Episode,
    EpisodeDigest,
    read_episode,
)
from recipe.analysis.metrics_file import Series, read_metrics
from recipe.analysis.names import ARM_ORDER, arm_key
from recipe.analysis.printable import printable
from recipe.analysis.reading import WORDS
from recipe.analysis.records import Finding, read_object
from recipe.analysis.unread_keys import Configuration
from recipe.analysis.variants import unlike_findings, with_variants

ALIKE = ("commit", "sandbox_level", "decoding")
"""Keys of run.json in which runs that are compared ought to agree."""
RUN_FILES = frozenset({"run.json", "metrics.jsonl", "episodes.jsonl", "rollouts.jsonl"})


@dataclass(frozen=True)
class Run:
    """One run folder. `total_steps` is what was planned, None if unknown; `variant` names the
    values in which the run differs from others of its arm, which it is then not averaged with.
    """

    path: Path
    arm: str
    seed: int | None
    setting: str
    total_steps: int | None
    info: Mapping[str, Any]
    steps: tuple[int, ...]
    metrics: Mapping[str, Series]
    episodes: tuple[EpisodeDigest, ...]
    findings: tuple[Finding, ...]
    configuration: Configuration = field(default_factory=dict)
    variant: str = ""

    def read_episode(self, item: EpisodeDigest) -> Episode:
        """The full episode behind one of `self.episodes`."""
        return read_episode(self.path / "episodes.jsonl", item)


@dataclass(frozen=True)
class RunSet:
    """All runs of one report, and everything a reader has to know about them."""

    runs: tuple[Run, ...]
    findings: tuple[Finding, ...]


class Loader:
    """Loads runs again and again while they go on; of episodes only what is new is parsed."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._readers: defaultdict[Path, DigestReader] = defaultdict(DigestReader)

    def load(self) -> RunSet:
        """Load every run folder at or below the paths, as it is now."""
        return load_runs(self._paths, self._readers)


def load_runs(paths: Iterable[Path], readers: Mapping[Path, DigestReader] | None = None) -> RunSet:
    """Load every run folder at or below `paths`, in the order given; a path without any becomes a
    finding. `readers` remember, by folder, what was read of its episodes before.
    """
    readers = defaultdict(DigestReader) if readers is None else readers
    folders: dict[Path, Path] = {}
    findings: list[Finding] = []
    for path in paths:
        found = find_run_folders(path)
        if not found:
            reason = "no run folder here (none of run.json, metrics.jsonl, episodes.jsonl)"
            findings.append(Finding(path, reason if path.exists() else "does not exist"))
        for folder in found:
            if folder.resolve() in folders:
                findings.append(Finding(folder, "given more than once; counted once"))
            folders.setdefault(folder.resolve(), folder)
    runs = tuple(load_run(folder, readers[resolved]) for resolved, folder in folders.items())
    findings.extend(finding for run in runs for finding in run.findings)
    runs, variant_findings = with_variants(runs)
    findings.extend(variant_findings)
    findings.extend(unlike_findings(group_by_arm(runs)))
    findings.extend(compare_runs(runs))
    return RunSet(runs, tuple(findings))


def find_run_folders(path: Path) -> list[Path]:
    """`path` itself where it is a run folder, else the run folders below it; nothing is looked for
    inside a run.
    """
    found: list[Path] = []
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if RUN_FILES & set(files):
            found.append(Path(folder))
            subfolders.clear()
    return found


def load_run(path: Path, reader: DigestReader | None = None) -> Run:
    """Load one run folder, whatever state it is in."""
    info, info_findings = read_object(path / "run.json")
    steps, metrics, metric_findings = read_metrics(path / "metrics.jsonl")
    # A run that asked no refiner may have no such file: nothing is missing.
    asked = not metrics or any(name.startswith("refiner/") for name in metrics)
    file = path / "episodes.jsonl"
    episodes, episode_findings = (
        (reader or DigestReader()).read(file) if asked or file.exists() else ((), ())
    )
    configuration, configuration_findings = read_configuration(path, info)
    arm, setting, seed = _identify(path, info)
    total_steps = info.get("total_steps")
    planned = total_steps if isinstance(total_steps, int) and total_steps > 0 else None
    progress: tuple[Finding, ...] = ()
    if planned is not None and steps and steps[-1] < planned:
        progress = (
            Finding(
                path, f"has reached step {steps[-1]} of {planned}; its figures speak of those steps"
            ),
        )
    share = _share(configuration)
    if share < 1:
        message = f"logs the rollouts of a share of {share:g} of the problems (run.log_share): "
        progress += (Finding(path, f"{message}counts and means over episodes are of these"),)
    return Run(
        path=path,
        arm=arm,
        seed=seed,
        setting=setting,
        total_steps=planned,
        info=info,
        steps=steps,
        metrics=metrics,
        episodes=episodes,
        findings=(
            info_findings + configuration_findings + metric_findings + episode_findings + progress
        ),
        configuration=configuration,
    )


def logged_share(run: Run) -> float:
    """The share of the problems whose rollouts are logged; 1 if it is not known."""
    return _share(run.configuration)


def _share(configuration: Configuration) -> float:
    try:
        return float(configuration.get("run.log_share", "1"))
    except ValueError:
        return 1.0


def _identify(path: Path, info: Mapping[str, Any]) -> tuple[str, str, int | None]:
    """Arm, setting and seed from `run.json`, else from the layout `<setting>/<arm>/seed<k>`."""
    absolute = path.absolute()
    in_layout = absolute.name.startswith("seed")
    arm = absolute.parent.name if in_layout else absolute.name
    setting = absolute.parent.parent.name if in_layout else ""
    digits = absolute.name.removeprefix("seed")
    seed = info.get("seed", int(digits) if in_layout and digits.isdecimal() else None)
    return (
        printable(str(info.get("arm") or arm)),
        printable(str(info.get("setting", setting) or "")),
        seed if isinstance(seed, int) else None,
    )


def compare_runs(runs: Sequence[Run]) -> tuple[Finding, ...]:
    """What makes runs of one report hard to compare: same arm and seed twice, other code, other
    isolation, lengths.
    """
    findings: list[Finding] = []
    seen: dict[tuple[str, str, int | None], Run] = {}
    for run in runs:
        twin = seen.setdefault((run.setting, run.arm, run.seed), run)
        if twin is not run:
            message = f"same setting, arm and seed as {twin.path}; both are counted"
            findings.append(Finding(run.path, message))
    facts = [_facts(run) for run in runs]
    for key in sorted({key for fact in facts for key in fact}):
        values = {fact[key] for fact in facts if key in fact}
        if len(values) > 1:
            findings.append(Finding(None, f"they differ in {key}: {', '.join(sorted(values))}"))
    lengths = {run.steps[-1] for run in runs if run.steps}
    if len(lengths) > 1:
        message = f"they end at different steps ({', '.join(map(str, sorted(lengths)))})"
        findings.append(Finding(None, message))
    return tuple(findings)


def _facts(run: Run) -> dict[str, str]:
    """What ought to be the same in all runs: `ALIKE`, and the version of each package."""
    facts = {key: str(run.info[key]) for key in ALIKE if run.info.get(key) is not None}
    versions = run.info.get("versions")
    readings = {item.reading for item in run.episodes if item.reading}
    if readings:
        key = "how the policy reads a′ for its cross entropy"
        facts[key] = " and ".join(sorted(WORDS[reading] for reading in readings))
    if isinstance(versions, dict):
        facts |= {f"version of {name}": str(version) for name, version in versions.items()}
    return facts


def group_by_arm(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by arm and variant, baselines first; the setting joins the name where the runs have
    several.
    """
    ordered = sorted(runs, key=_place)
    several = len({run.setting for run in ordered}) > 1
    groups: dict[str, list[Run]] = {}
    for run in ordered:
        key = arm_key(run.setting if several else "", run.arm, run.variant)
        groups.setdefault(key, []).append(run)
    return groups


def _place(run: Run) -> tuple[str, int, str, str, int, str]:
    """Where a run stands among others, whatever the order in which folders are given."""
    return (run.setting, *_rank(run.arm), run.variant, run.seed or 0, str(run.path))


def _rank(arm: str) -> tuple[int, str]:
    return (ARM_ORDER.index(arm) if arm in ARM_ORDER else len(ARM_ORDER), arm)


def choose_metric(runs: Sequence[Run], patterns: Sequence[str]) -> str | None:
    """The name for all runs: the first pattern with a match, and of its matches the one most runs
    have.
    """
    for pattern in patterns:
        names = [name for run in runs for name in run.metrics if fnmatchcase(name, pattern)]
        if names:
            return max(sorted(set(names)), key=names.count)
    return None

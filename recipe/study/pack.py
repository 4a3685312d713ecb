"""The runs of a study in one small file, and back: metrics, configuration, run.json, verdicts on
held-out problems, and a sample of the episodes. Names of folders of this machine are replaced.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import recipe
from recipe.analysis.output import write_whole
from recipe.cpu.progress import last_step
from recipe.study.plan import Study
from recipe.study.trainings import FAILURES_FILE, RUNS_FOLDER, VALIDATION_FOLDER

WHOLE = ("metrics.jsonl", "config.yaml", "run.json", FAILURES_FILE)
EPISODES, EPISODES_A_RUN = "episodes.jsonl", 24
VERDICTS_FILE = "verdicts.json"


def pack_runs(study: Study, out: Path, target: Path) -> Path:
    """Write the runs of `out` to `target`; the same runs give the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz", preset=9) as archive:
        for folder in _run_folders(study, out / RUNS_FOLDER):
            for name, text in _files_of(folder, out):
                _add(archive, f"{folder.relative_to(out / RUNS_FOLDER)}/{name}", text)
    return write_whole(target, content.getvalue())


@contextmanager
def unpacked(packed: Path) -> Iterator[Path]:
    """A folder with the packed runs, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        with tarfile.open(packed, mode="r:xz") as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def verdicts_of(folder: Path) -> dict[int, dict[str, int]]:
    """How often each verdict was given at each validation: of a packed run, or of its dumps."""
    packed = folder / VERDICTS_FILE
    if packed.exists():
        stored = json.loads(packed.read_text(encoding="utf-8"))
        return {int(step): counts for step, counts in stored.items()}
    found = {}
    for path in sorted((folder / VALIDATION_FOLDER).glob("*.jsonl"), key=lambda p: int(p.stem)):
        lines = path.read_text(encoding="utf-8").splitlines()
        counts = Counter(str(json.loads(line).get("verdict")) for line in lines)
        found[int(path.stem)] = dict(sorted(counts.items()))
    return found


def _run_folders(study: Study, runs: Path) -> list[Path]:
    """The folders of the study's runs that have ended or failed, in a fixed order."""
    folders = [runs / arm / f"seed{seed}" for arm in study.arms for seed in study.seeds_of(arm)]
    return sorted(
        folder
        for folder in folders
        if last_step(folder / "metrics.jsonl") >= study.steps or (folder / FAILURES_FILE).exists()
    )


def _files_of(folder: Path, out: Path) -> Iterator[tuple[str, str]]:
    for name in WHOLE:
        if (folder / name).exists():
            yield name, _without_places((folder / name).read_text(encoding="utf-8"), out)
    episodes = folder / EPISODES
    if episodes.exists():
        yield EPISODES, "".join(sampled(episodes.read_text(encoding="utf-8").splitlines()))
    yield VERDICTS_FILE, json.dumps(verdicts_of(folder), indent=1) + "\n"


def sampled(lines: list[str]) -> list[str]:
    """A fixed choice of the lines, in their order: those whose digests are smallest."""
    chosen = sorted(lines, key=lambda line: hashlib.sha256(line.encode()).hexdigest())
    kept = set(chosen[:EPISODES_A_RUN])
    return [f"{line}\n" for line in lines if line in kept]


def _without_places(text: str, out: Path) -> str:
    """The text with the names of the study's folder, the checkout and the environment replaced."""
    checkout = Path(recipe.__file__).parents[1]
    places = {str(out): "STUDY", str(checkout): "CHECKOUT", sys.prefix: "ENVIRONMENT"}
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    return text


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode("utf-8")
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))

"""An evaluation's folder: what was asked, the samples, the verdicts, the scores.

| file | what |
|---|---|
| `evaluation.json` | model, hash of its weights, engine, sampling, limit, date; files and hashes |
| `samples/BENCHMARK.PROTOCOL.jsonl` | responses as generated, appended as they come |
| `verdicts/BENCHMARK.PROTOCOL.jsonl` | one line a judged sample, with its program |
| `programs/BENCHMARK.PROTOCOL.jsonl` | the programs in the form that evalplus's evaluator reads |
| `quarantine.jsonl` | records of the benchmarks that were left out, with the reason |
| `results.json` | the scores |
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recipe.evaluation.chat_options import CHAT_OPTIONS, in_words
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.files import Log, read_log
from recipe.evaluation.generate import Engine, Sampling
from recipe.evaluation.judging import Judged, judged_in
from recipe.evaluation.problems import ProblemSet
from recipe.evaluation.results import Scores
from reward.config import JudgeConfig

JUDGED_BY = (
    "timeout_s", "program_timeout_s", "max_timeouts", "memory_bytes", "output_bytes", "packages",
)  # fmt: skip
"""The settings of the judge that a verdict depends on."""


@dataclass(frozen=True)
class Asked:
    """What an evaluation asks for. `sizes`: how many problems of each benchmark without a limit;
    `chat_options`: of the chat template.
    """

    model: str
    sampling: Sampling
    mbpp_split: str
    limit: int | None
    sizes: Mapping[str, int]
    chat_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """The content of `evaluation.json`; what an earlier version did not write is None."""

    content: Mapping[str, Any]

    @property
    def weights(self) -> str | None:
        return self.content.get("weights_sha256")

    def conditions(self) -> dict[str, Any]:
        """What should be equal for scores to compare, apart from the problems."""
        sampling = {key: self.content.get(key) for key in ("temperature", "top_p", "max_tokens")}
        judge = self.content.get("judge", {})
        chat = {"chat template options": in_words(self.chat_options) or "none"}
        return sampling | chat | {f"judge's {key}": value for key, value in judge.items()}

    @property
    def chat_options(self) -> dict[str, Any]:
        """The options that the chat template was given."""
        return dict(self.content.get(CHAT_OPTIONS) or {})

    def problems(self) -> dict[str, str | None]:
        """The hash of each benchmark's problems."""
        benchmarks = self.content.get("benchmarks", {})
        return {name: entry.get("content_sha256") for name, entry in benchmarks.items()}

    def size(self, benchmark: str) -> int | None:
        """How many problems a whole evaluation of the benchmark has: its file's or its split's."""
        return self.content.get("benchmarks", {}).get(benchmark, {}).get("in_split")


@dataclass(frozen=True)
class Folder:
    """The paths of an evaluation."""

    path: Path

    def samples(self, benchmark: str, protocol: str) -> Log:
        return Log(self.path / "samples" / f"{benchmark}.{protocol}.jsonl")

    def verdicts(self, benchmark: str, protocol: str) -> Log:
        return Log(self.path / "verdicts" / f"{benchmark}.{protocol}.jsonl")

    def remember(self, what: Asked, sets: Iterable[ProblemSet]) -> None:
        """Write down what is asked, or check that it is what the folder's samples were drawn with.

        More samples, problems, benchmarks and protocols may be added later; all else must stay.

        Raises:
            EvaluationError: the folder holds samples of another model, sampling, split or file.
        """
        known = self._known()
        asked = {"model": what.model, **asdict(what.sampling), "mbpp_split": what.mbpp_split}
        asked |= {CHAT_OPTIONS: dict(what.chat_options)}
        asked.pop("samples")
        for key, value in asked.items():
            self._same(key, known.get(key, value), value)
        benchmarks = known.get("benchmarks", {})
        for problems in sets:
            name = str(problems.benchmark)
            before = benchmarks.get(name, {}).get("sha256", problems.sha256)
            self._same(f"{name} sha256", before, problems.sha256)
            benchmarks[name] = {
                "path": str(problems.path),
                "sha256": problems.sha256,
                "content_sha256": problems.content_sha256,
                "problems": len(problems.problems),
                "in_split": what.sizes[name],
                "quarantined": len(problems.quarantined),
            }
        self._write(known | asked | {"limit": what.limit, "benchmarks": benchmarks})
        self._quarantine(sets)

    def remember_engine(self, engine: Engine) -> None:
        """Write down what generates, or check that it is what the folder's samples came from.

        Raises:
            EvaluationError: they came from another engine, or from other weights.
        """
        made_by = {"engine": engine.name, "weights_sha256": engine.weights()}
        if self._has_samples():
            known = self._known()
            for key, value in made_by.items():
                self._same(key, known.get(key), value)
        else:
            self._write(_read(self._place) | made_by)

    def remember_judge(self, judge: JudgeConfig) -> None:
        """Write down what decides a verdict, or check that it is what decided those that are there.

        Raises:
            EvaluationError: they were judged with other settings.
        """
        known = _read(self._place)
        settings = {key: getattr(judge, key) for key in JUDGED_BY}
        before = known.get("judge", {})
        changed = [key for key in before if before[key] != settings.get(key)]
        verdicts = self.path / "verdicts"
        if changed and any(path.stat().st_size for path in verdicts.glob("*.jsonl")):
            key = changed[0]
            raise EvaluationError(
                f"--set {key}={settings.get(key)}: programs were judged with {key}={before[key]}; "
                f"use the same, or delete {verdicts} to judge all of them again"
            )
        self._write(known | {"judge": settings})

    def write_scores(self, scores: Iterable[Scores]) -> None:
        """Replace `results.json`, and write down when."""
        write_json(self.path / "results.json", [asdict(score) for score in scores])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._write(_read(self._place) | {"scored_at": now})

    def record(self) -> Record:
        """What is written down of how the scores came about.

        Raises:
            EvaluationError: nothing is.
        """
        if not self._place.exists():
            raise EvaluationError(f"{self._place}: no such file; give an evaluation's --out")
        return Record(_read(self._place))

    def write_programs(self, benchmark: str, protocol: str, verdicts: Iterable[Judged]) -> None:
        """The programs as evalplus's evaluator takes them (`task_id`, `solution`)."""
        path = self.path / "programs" / f"{benchmark}.{protocol}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            {"task_id": evalplus_id(verdict.problem_id), "solution": verdict.program or ""}
            for verdict in verdicts
        ]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")

    def judged(self) -> dict[tuple[str, str], list[Judged]]:
        """The verdicts by (benchmark, protocol), of every file there is; nothing is changed.

        Raises:
            EvaluationError: there is none, or a line is no verdict.
        """
        found = {}
        for path in sorted((self.path / "verdicts").glob("*.jsonl")):
            benchmark, _, protocol = path.stem.partition(".")
            verdicts = judged_in(read_log(path), path)
            if verdicts:
                found[benchmark, protocol] = verdicts
        if not found:
            raise EvaluationError(
                f"{self.path}: no verdicts there; make them with "
                f"`python -m recipe.evaluation evaluate … --out {self.path}`"
            )
        return found

    @property
    def _place(self) -> Path:
        return self.path / "evaluation.json"

    def _known(self) -> dict[str, Any]:
        """What holds for the samples that are there."""
        return _read(self._place) if self._place.exists() and self._has_samples() else {}

    def _write(self, content: Mapping[str, Any]) -> None:
        write_json(self._place, content)

    def _has_samples(self) -> bool:
        """Whether anything is there that other settings would spoil."""
        return any(path.stat().st_size for path in (self.path / "samples").glob("*.jsonl"))

    def _same(self, key: str, before: Any, now: Any) -> None:
        if before != now:
            raise EvaluationError(
                f"--out {self.path}: its samples were made with {key}={before!r}, not {now!r}; "
                "use another folder, or the same settings"
            )

    def _quarantine(self, sets: Iterable[ProblemSet]) -> None:
        lines = [
            json.dumps({"benchmark": str(problems.benchmark), **asdict(left_out)})
            for problems in sets
            for left_out in problems.quarantined
        ]
        (self.path / "quarantine.jsonl").write_text("".join(f"{line}\n" for line in lines))


def evalplus_id(problem_id: str) -> str:
    """The problem's name at evalplus: MBPP's are `Mbpp/NUMBER` there, whatever the file says."""
    name, _, number = problem_id.rpartition("/")
    return f"Mbpp/{number}" if name.lower() in ("", "mbppeval", "mbpp") else problem_id


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all. NaN (nothing to average) becomes null."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_without_nan(content), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and value != value else value


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise EvaluationError(f"{path}: {error}; delete it and start again") from error

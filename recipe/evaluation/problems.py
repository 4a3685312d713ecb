"""Benchmarks from local files: every form of record becomes one frozen `EvalProblem`.

| form | keys | seen in |
|---|---|---|
| HumanEval | prompt, entry_point, canonical_solution, test | HumanEval(+), converted MBPP |
| MBPP | test_list, code, and text or prompt; test where it is MBPP+ | MBPP, MBPP+ |
| prepared APPS | prompt (messages), reward_model, extra_info | `recipe.data`, micro-APPS |

A record that cannot be judged is quarantined with the reason; a file that yields no problem is an
error.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.files import read_records
from recipe.evaluation.kinds import Benchmark, EvalProblem, Family
from recipe.evaluation.records import from_apps, from_humaneval, from_mbpp
from reward.problem import MalformedProblem


@dataclass(frozen=True)
class Quarantined:
    """A record that was left out, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class ProblemSet:
    """A benchmark's problems in the order of its file.

    Attributes:
        sha256: the file's.
        content_sha256: what is asked and tested, whatever the file's form.
    """

    benchmark: Benchmark
    path: Path
    sha256: str
    content_sha256: str
    problems: tuple[EvalProblem, ...]
    quarantined: tuple[Quarantined, ...]


def load_problems(benchmark: Benchmark, path: Path) -> ProblemSet:
    """The problems of a .jsonl, .jsonl.gz, .json or .parquet file.

    Raises:
        EvaluationError: no such file, not of a known kind, or not one usable problem.
    """
    key = f"--benchmark {benchmark}={path}"
    problems: dict[str, EvalProblem] = {}
    quarantined: list[Quarantined] = []
    for place, record in read_records(path, key):
        try:
            problem = _convert(benchmark.family, place, record)
            if problem.problem_id in problems:
                raise MalformedProblem("a record with this id came before")
            problems[problem.problem_id] = problem
        except MalformedProblem as error:
            quarantined.append(Quarantined(_name(place, record), str(error)))
    if not problems:
        why = f"; the first: {quarantined[0].reason}" if quarantined else ""
        raise EvaluationError(f"{key}: no usable problem in {len(quarantined)} records{why}")
    return ProblemSet(
        benchmark,
        path,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        content_sha256(problems.values()),
        tuple(problems.values()),
        tuple(quarantined),
    )


def content_sha256(problems: Iterable[EvalProblem]) -> str:
    """The hash of what is asked and tested; the benchmark's own solutions do not count."""
    digest = hashlib.sha256()
    for problem in problems:
        content = asdict(replace(problem, reference=""))
        digest.update(json.dumps(content, sort_keys=True, default=repr).encode())
    return digest.hexdigest()


def _convert(family: Family, place: str, record: Mapping[str, Any] | str) -> EvalProblem:
    if isinstance(record, str):
        raise MalformedProblem(record)
    if "base_input" in record and "test" not in record:
        raise MalformedProblem(
            "inputs without expected outputs (evalplus's release form); take the edition with a "
            "`test` column, see docs/evaluation.md"
        )
    if family == Family.APPS:
        return from_apps(record, place)
    if family == Family.MBPP:
        return from_mbpp(record, place)
    return from_humaneval(record, place)


def _name(place: str, record: Mapping[str, Any] | str) -> str:
    if isinstance(record, str):
        return place
    extra = record.get("extra_info")
    own = extra.get("problem_id") if isinstance(extra, Mapping) else record.get("task_id")
    return place if own is None else f"{place} ({own})"

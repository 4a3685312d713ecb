"""Real problems: their own solutions are accepted, and recorded verdicts agree."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import parse_problem
from reward.verdict import Verdict

# What CodeRL's judge recorded -> our verdicts for it.
RECORDED = {True: "accepted", False: "wrong_answer", -1: "runtime_error", -2: "compile_error"}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(JudgeConfig(audit_fraction=0.1)) as judge:
        yield judge


def _apps(shared_data: Path) -> Iterator[tuple[Path, Any]]:
    for folder in sorted((shared_data / "apps" / "train").iterdir()):
        cases = json.loads((folder / "input_output.json").read_text())
        yield folder, parse_problem({"problem_id": folder.name, "input_output": cases})


def _checked(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


def test_reference_solutions_of_apps_are_accepted(judge: Judge, shared_data: Path) -> None:
    for folder, problem in _apps(shared_data):
        for solution in json.loads((folder / "solutions.json").read_text()):
            assert judge.judge(problem, solution).verdict == Verdict.ACCEPTED, folder.name


def test_recorded_verdicts_on_model_written_programs_agree(judge: Judge, shared_data: Path) -> None:
    compared = 0
    for folder, problem in _apps(shared_data):
        for program in json.loads((folder / "gen_solutions.json").read_text()):
            verdict = judge.judge(problem, program["code"]).verdict
            assert verdict == RECORDED[program["result"]], (folder.name, program["error_type"])
            compared += 1
    assert compared == 59


@pytest.mark.parametrize(
    ("name", "count"),
    [("humaneval/HumanEval.jsonl.gz", 164), ("mbpp/mbpp_sanitized.jsonl", 427)],
)
def test_canonical_solutions_are_accepted_and_empty_ones_are_not(
    judge: Judge, shared_data: Path, name: str, count: int
) -> None:
    records = _checked(shared_data / name)
    problems = [parse_problem(record) for record in records]
    futures = [
        judge.submit(problem, record["canonical_solution"])
        for problem, record in zip(problems, records, strict=True)
    ]
    refused = [
        (record["task_id"], str(future.result().verdict), future.result().detail)
        for record, future in zip(records, futures, strict=True)
        if future.result().verdict != Verdict.ACCEPTED
    ]
    assert refused == []
    assert len(records) == count
    empty = [judge.submit(problem, "    return None\n") for problem in problems]
    assert sum(future.result().verdict == Verdict.ACCEPTED for future in empty) == 0

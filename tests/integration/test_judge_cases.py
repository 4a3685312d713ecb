"""Programs that judges of this kind have got wrong, in order: some steal from those before them."""

from pathlib import Path
from typing import Any

import pytest

from reward.config import JudgeConfig
from reward.jsontext import loads
from reward.judge import Judge
from reward.problem import MalformedProblem, Problem, parse_problem
from reward.verdict import Verdict

COUNT = 20


def _lines(path: Path) -> list[dict[str, Any]]:
    return [loads(line) for line in path.read_text().splitlines()]


def _problem(record: dict[str, Any]) -> Problem | None:
    """None where the problem is refused, so that no program of it is ever accepted."""
    try:
        return parse_problem(record)
    except MalformedProblem:
        return None


@pytest.mark.parametrize("strict", [False, True], ids=["fast", "strict"])
def test_hostile_programs_are_refused_and_benign_ones_accepted(
    shared_data: Path, strict: bool
) -> None:
    folder = shared_data / "judge"
    problems = {r["problem_id"]: _problem(r) for r in _lines(folder / "problems.jsonl")}
    cases = _lines(folder / "cases.jsonl")
    wrong: list[str] = []
    with Judge(JudgeConfig(workers=1, strict=strict, audit_fraction=0.0)) as judge:
        for case in cases:
            problem = problems[case["problem_id"]]
            verdict = judge.judge(problem, case["code"]).verdict if problem else None
            if (verdict == Verdict.ACCEPTED) is not (case["kind"] == "benign"):
                wrong.append(f"{case['name']}: {verdict}")
    assert wrong == []
    assert len(cases) == COUNT

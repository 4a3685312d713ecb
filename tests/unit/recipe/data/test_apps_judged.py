"""Real APPS problems, prepared as for training, judged by the reward function verl calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recipe.cpu.micro_corrupt import fenced
from recipe.data.apps import prepare
from reward.apps import compute_score

# CodeRL's record of a program (`result`) and the verdict that it must get from us.
VERDICT_OF_RECORD = {
    True: "accepted",
    False: "wrong_answer",
    -1: "runtime_error",
    -2: "compile_error",
}


@pytest.fixture(scope="module")
def problems(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[dict[str, Any], Path]]:
    """Dataset rows with the folder each came from."""
    out = tmp_path_factory.mktemp("apps")
    prepare(str(shared_data / "apps"), out)
    rows = pq.read_table(out / "train.parquet").to_pylist()
    root = shared_data / "apps" / "train"
    return [(row, root / row["extra_info"]["problem_id"]) for row in rows]


def verdicts(row: dict[str, Any], programs: Iterable[str]) -> list[str]:
    """What the reward function says of each program, answered as a model would."""

    async def judge_all() -> list[dict[str, Any]]:
        truth = row["reward_model"]["ground_truth"]
        answers = [f"Here it is.\n{fenced(program)}\n" for program in programs]
        return await asyncio.gather(
            *(compute_score("apps", answer, truth, row["extra_info"]) for answer in answers)
        )

    return [result["verdict"] for result in asyncio.run(judge_all())]


def test_every_reference_solution_is_accepted(
    problems: list[tuple[dict[str, Any], Path]],
) -> None:
    counts = {}
    for row, folder in problems:
        solutions = json.loads((folder / "solutions.json").read_text())
        assert row["extra_info"]["reference_solution"] == solutions[0]
        assert verdicts(row, solutions) == ["accepted"] * len(solutions), folder.name
        counts[folder.name] = len(solutions)
    assert counts == {"0001": 24, "0111": 1, "2404": 58}


def test_model_written_programs_get_the_recorded_verdicts(
    problems: list[tuple[dict[str, Any], Path]],
) -> None:
    """All 59 agree, so no difference needs explaining."""
    judged = 0
    for row, folder in problems:
        records = json.loads((folder / "gen_solutions.json").read_text())
        expected = [VERDICT_OF_RECORD[record["result"]] for record in records]
        assert verdicts(row, (record["code"] for record in records)) == expected, folder.name
        judged += len(records)
    assert judged == 59

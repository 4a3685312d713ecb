"""Problems whose reference solutions disagree are flagged, counted, and left out on demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recipe.data.apps import SEVERAL_ANSWERS, CheckOptions, PrepareOptions, prepare
from recipe.data.prepare_apps import main
from recipe.data.solution_check import Checked
from reward.config import JudgeConfig
from reward.jsontext import integer
from reward.problem import parse_input_output

FIRST = "n = int(input())\nprint(n, 0)"
SECOND = "n = int(input())\nprint(0, n)"
CRASH = "raise SystemExit(3)"
CHECKER = "def check(input, output, answer):\n"
CHECKER += "    return sum(map(int, output.split())) == int(input)\n"


def record(name: str, solutions: list[str], **more: Any) -> dict[str, Any]:
    """Two numbers with a given sum."""
    return {
        "problem_id": name,
        "question": f"{name}: print two numbers with the sum n.",
        "input_output": json.dumps({"inputs": ["1\n", "6\n"], "outputs": ["1 0\n", "6 0\n"]}),
        "solutions": json.dumps(solutions),
    } | more


RECORDS = [
    record("agree", [FIRST, FIRST + "  # again"]),
    record("disagree", [FIRST, SECOND]),
    record("disagree at last", [FIRST, FIRST + "\n", SECOND]),
    record("wrong first", [SECOND, FIRST]),
    record("crash", [FIRST, CRASH]),
    record("alone", [FIRST]),
    record("checked", [FIRST, SECOND], checker=CHECKER),
    record("checked only", [SECOND], checker=CHECKER),
    record("unsolved", [SECOND, "print(0)"]),
]


def options(**changes: Any) -> PrepareOptions:
    return PrepareOptions(check=CheckOptions(JudgeConfig(workers=1), **changes))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "in.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in RECORDS))
    return path


def test_problems_whose_solutions_disagree_are_counted(source: Path, tmp_path: Path) -> None:
    card = prepare(str(source), tmp_path, options=options())["train"]
    assert card["several_answers"] == {
        "compared": 6,
        "flagged": 3,
        "problems": ["disagree", "disagree at last", "wrong first"],
    }
    assert (card["rows"], card["quarantined"]) == (8, 1)


def test_they_are_left_out_on_demand(source: Path, tmp_path: Path) -> None:
    card = prepare(str(source), tmp_path, options=options(drop_several_answers=True))["train"]
    assert (card["rows"], card["reasons"][SEVERAL_ANSWERS]) == (5, 3)
    assert card["several_answers"]["flagged"] == 3


def test_fewer_solutions_find_fewer(source: Path, tmp_path: Path) -> None:
    for compared, flagged in ((1, 1), (2, 2), (3, 3)):  # one is found on the way to a right one
        card = prepare(str(source), tmp_path, options=options(compare_solutions=compared))["train"]
        assert card["several_answers"]["flagged"] == flagged


def test_the_command_tells_and_leaves_out(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--source", str(source), "--out", str(tmp_path), "--drop-several-answers"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "3 may have several right answers" in out
    assert "5 problems" in out


@pytest.mark.parametrize(
    ("tests", "several"),
    [
        ((), False),
        (("rr",), False),
        (("rr", "rr"), False),
        (("rr", "rx"), True),
        (("rx", "xr"), True),
        (("xx", "xx"), False),  # all differ from what is expected: the tests may be wrong
        (("rr", "r-"), False),  # a crash or a time-out is no answer
        (("rr", ""), False),
    ],
)
def test_a_disagreement_is_about_one_test(tests: tuple[str, ...], several: bool) -> None:
    assert Checked(("accepted",) * len(tests), tests).several_answers is several


def test_a_checker_and_long_integers_reach_the_judge(tmp_path: Path) -> None:
    long = integer("9" * 9131)
    suite = f'{{"fn_name": "f", "inputs": [[9131]], "outputs": [{"9" * 9131}]}}'
    source = tmp_path / "in.jsonl"
    one = record("long", ["def f(n): return 10**n - 1"], input_output=suite)
    other = record("c", [SECOND], checker=CHECKER)
    source.write_text("\n".join(map(json.dumps, (one, other))))
    card = prepare(str(source), tmp_path / "out", options=options())["train"]
    assert (card["rows"], card["solution_check"]["accepted"]) == (2, 2)
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    problems = [parse_input_output(row["reward_model"]["ground_truth"]) for row in rows]
    assert problems[0].tests[0].expected == long
    assert problems[1].checker == CHECKER

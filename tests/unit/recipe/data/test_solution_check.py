"""Reference solutions are run, verdicts kept, and constant answers counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.data.apps import CheckOptions, PrepareOptions, prepare
from recipe.data.prepare_apps import main
from recipe.data.solution_check import (
    CACHE_FILE,
    Checked,
    VerdictFile,
    best_constant,
    digest,
    judge_identity,
)
from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import Problem, parse_input_output

GOOD, WRONG, CRASH = "print(int(input()) + 1)", "print(0)", "raise SystemExit(3)"
ONE_WORKER = PrepareOptions(check=CheckOptions(JudgeConfig(workers=1), max_solutions=2))


def record(name: str, solutions: list[str]) -> dict[str, Any]:
    """Print the successor of a number; one of two tests has the output 2."""
    return {
        "problem_id": name,
        "question": f"{name}: print the next number.",
        "input_output": json.dumps({"inputs": ["1\n", "6\n"], "outputs": ["2\n", "7\n"]}),
        "solutions": json.dumps(solutions),
    }


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return str(path)


def keys(out: Path) -> list[str]:
    """The complete lines of the file of verdicts."""
    path = out / CACHE_FILE
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line)["key"] for line in lines]


def snapshot(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in out.iterdir()}


def stdio(*outputs: str) -> Problem:
    inputs = [str(number) for number in range(len(outputs))]
    return parse_input_output({"inputs": inputs, "outputs": list(outputs)})


def call(*outputs: Any) -> Problem:
    inputs = [[number] for number in range(len(outputs))]
    return parse_input_output({"inputs": inputs, "outputs": list(outputs), "fn_name": "f"})


@pytest.mark.parametrize(
    ("problem", "passed"),
    [
        (stdio("YES", "NO", "YES\n"), 2),
        (stdio("1", "2", "3"), 1),
        (stdio("1.0", "1.0000001", "2.0"), 2),  # equal within the judge's tolerance
        (stdio("-1", "-1", "-1 "), 3),
        (call(True, False, True), 2),
        (call([1], [1], [2], [3, 4]), 2),
        (call(0, None, None), 2),
    ],
)
def test_the_best_constant_passes_as_many_tests_as_have_its_output(
    problem: Problem, passed: int
) -> None:
    assert best_constant(problem) == passed


def test_the_judge_gives_the_constant_program_as_many_tests() -> None:
    with Judge(JudgeConfig(workers=1)) as judge:
        for problem, code in (
            (stdio("YES", "NO", "YES\n"), "print('YES')"),
            (call([1], [1], [2], [3, 4]), "def f(x):\n    return [1]"),
        ):
            assert judge.judge(problem, code).passed == best_constant(problem)


@pytest.mark.parametrize(
    ("verdicts", "accepted", "judge_failed"),
    [
        ((), None, False),
        (("accepted",), 0, False),
        (("wrong_answer", "accepted"), 1, False),
        (("wrong_answer", "runtime_error"), None, False),
        (("internal_error", "wrong_answer"), None, True),
        (("internal_error", "accepted"), 1, False),
    ],
)
def test_a_failure_of_the_judge_is_no_failure_of_the_problem(
    verdicts: tuple[str, ...], accepted: int | None, judge_failed: bool
) -> None:
    checked = Checked(verdicts)
    assert (checked.accepted, checked.judge_failed) == (accepted, judge_failed)


def test_problems_that_their_solutions_fail_are_quarantined_and_the_rest_learn_a_right_one(
    tmp_path: Path,
) -> None:
    solutions = {
        "first": [GOOD, WRONG],
        "second": [WRONG, GOOD],
        "too_late": [WRONG, CRASH, GOOD],  # two are tried
        "none": [],
        "syntax": ["print("],
    }
    source = write_jsonl(tmp_path / "in.jsonl", [record(n, s) for n, s in solutions.items()])
    card = prepare(source, tmp_path / "out", options=ONE_WORKER)["train"]
    info = pq.read_table(tmp_path / "out" / "train.parquet")["extra_info"].to_pylist()
    rows = [(one["index"], one["problem_id"], one["reference_solution"]) for one in info]
    assert rows == [(0, "first", GOOD), (1, "second", GOOD), (2, "none", "")]
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    reasons = {entry["problem_id"]: entry["reason"] for entry in map(json.loads, lines)}
    assert reasons == {
        "too_late": "no reference solution passes the tests (1 runtime_error, 1 wrong_answer)",
        "syntax": "no reference solution passes the tests (1 compile_error)",
    }
    assert (card["read"], card["rows"], card["quarantined"]) == (5, 3, 2)
    assert card["reasons"] == dict.fromkeys(reasons.values(), 1)
    assert card["solution_check"] == {
        "accepted": 2,
        "accepted_not_the_first": 1,
        "none_accepted": 2,
        "judge_failed": 0,
        "without_solution": 1,
    }
    assert card["constant_answers"] == {
        "mean_share_of_tests_passed": 0.5,
        "problems_with_half_passed": 3,
        "problems_solved": [],
    }


def test_a_problem_that_a_constant_solves_is_named_in_the_card(tmp_path: Path) -> None:
    constant = {"inputs": ["1", "2"], "outputs": ["-1", "-1\n"]}
    records = [record("a", [GOOD]), record("b", []) | {"input_output": json.dumps(constant)}]
    card = prepare(write_jsonl(tmp_path / "in.jsonl", records), tmp_path / "out")["train"]
    assert card["constant_answers"]["problems_solved"] == ["b"]
    assert card["constant_answers"]["mean_share_of_tests_passed"] == 0.75
    assert "solution_check" not in card


def test_a_second_preparation_judges_nothing_and_changes_nothing(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "in.jsonl", [record("a", [GOOD]), record("b", [WRONG]), record("c", [GOOD])]
    )
    prepare(source, tmp_path / "out", options=ONE_WORKER)
    before = snapshot(tmp_path / "out")
    assert CACHE_FILE in before
    started = time.monotonic()
    prepare(source, tmp_path / "out", options=ONE_WORKER)
    assert snapshot(tmp_path / "out") == before
    assert time.monotonic() - started < 1.0, "a judge was started"


def test_a_torn_line_is_judged_again_and_the_others_are_not(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "in.jsonl", [record(name, [f"{GOOD}  # {name}"]) for name in "abc"]
    )
    prepare(source, tmp_path / "out", options=ONE_WORKER)
    before, path = keys(tmp_path / "out"), tmp_path / "out" / CACHE_FILE
    path.write_bytes(path.read_bytes()[:-20])
    card = prepare(source, tmp_path / "out", options=ONE_WORKER)["train"]
    assert card["solution_check"]["accepted"] == 3
    known = VerdictFile(path)
    assert [known.get(key) for key in before] == [("accepted", "rr")] * 3
    # Two whole ones, the torn one, the new one.
    assert len(path.read_bytes().splitlines()) == 4


def test_tests_solution_and_judge_decide_what_is_known() -> None:
    one, other = stdio("1", "2"), stdio("1", "3")
    identity = judge_identity(JudgeConfig())
    known = digest(one, GOOD, identity)
    assert known == digest(stdio("1", "2"), GOOD, judge_identity(JudgeConfig(workers=7)))
    assert known != digest(other, GOOD, identity)
    assert known != digest(one, WRONG, identity)
    assert known != digest(one, GOOD, judge_identity(JudgeConfig(timeout_s=9.0)))


def test_a_killed_preparation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    slow = f"import time\ntime.sleep(0.1)\n{GOOD}  # "
    records = [record(str(number), [f"{slow}{number}"]) for number in range(12)]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "recipe.data.prepare_apps", "--source", source]
    process = subprocess.Popen([*command, "--out", str(out)], start_new_session=True)
    deadline = time.monotonic() + 60
    while len(keys(out)) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = keys(out)
    assert 3 <= len(before) < 12
    assert not (out / "train.parquet").exists()
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    assert keys(out)[: len(before)] == before
    assert len(keys(out)) == len(set(keys(out))) == 12
    assert pq.read_metadata(out / "train.parquet").num_rows == 12


def test_the_command_line_says_what_was_checked_and_what_is_wrong_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constant = json.dumps({"inputs": ["1", "2"], "outputs": ["-1", "-1"]})
    records = [record("a", [WRONG]), record("b", ["print(-1)"]) | {"input_output": constant}]
    flags = ["--source", write_jsonl(tmp_path / "in.jsonl", records), "--out", str(tmp_path / "o")]
    assert main([*flags, "--max-solutions", "1"]) == 0
    told = capsys.readouterr().out
    assert "1 problems (0 call-based), 1 quarantined" in told
    assert "a constant answer passes all tests of 1 of them" in told
    assert main([*flags, "--no-check"]) == 0
    assert "2 problems (0 call-based), 0 quarantined" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*flags, "--timeout-s", "0"])
    assert "argument --timeout-s: 0 is not a number above 0" in capsys.readouterr().err


def test_every_generated_problem_is_solved_by_its_solution(tmp_path: Path) -> None:
    prepare_micro_apps(tmp_path, 12, 4)
    options = PrepareOptions(check=CheckOptions(JudgeConfig(workers=2), max_solutions=1))
    card = prepare(str(tmp_path / "micro_apps"), tmp_path / "out", ("train", "test"), options)
    assert [card[split]["solution_check"]["accepted"] for split in ("train", "test")] == [12, 4]
    assert all(card[split]["quarantined"] == 0 for split in card)


def test_the_real_problems_are_solved_by_their_first_solutions(
    shared_data: Path, tmp_path: Path
) -> None:
    options = PrepareOptions(check=CheckOptions())
    card = prepare(str(shared_data / "apps"), tmp_path, options=options)["train"]
    assert (card["rows"], card["quarantined"]) == (3, 0)
    assert card["solution_check"]["accepted"] == 3
    assert card["solution_check"]["accepted_not_the_first"] == 0
    # The samples have one test each, so that printing its output is enough.
    assert card["constant_answers"]["problems_solved"] == ["0001", "0111", "2404"]

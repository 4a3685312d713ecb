"""`python -m reward.judge`: every program gets its line, and what cannot be judged says why."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reward.cli import FAULTY_LINES, main

PROBLEMS: list[dict[str, Any]] = [
    {"problem_id": "sum", "input_output": {"inputs": ["1 2\n"], "outputs": ["3\n"]}},
    {"problem_id": "bad", "input_output": {"inputs": ["1"], "outputs": []}},
    {
        "task_id": "H/1",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    },
]
PROGRAMS: list[dict[str, Any]] = [
    {"problem_id": "sum", "code": "print(sum(map(int, input().split())))"},
    {"problem_id": "sum", "response": "Here:\n```python\nprint(4)\n```"},
    {"problem_id": "sum", "response": "no program"},
    {"problem_id": "bad", "code": "print(1)"},
    {"problem_id": "absent", "code": "print(1)"},
    {"problem_id": "sum"},
    {"problem_id": "H/1", "code": "    return x + 1\n"},
    {"problem_id": "H/1", "code": "def f(x):\n    return x\n"},
]
VERDICTS = ["accepted", "wrong_answer", "compile_error", *["internal_error"] * 3, "accepted"]
VERDICTS += ["wrong_answer"]


def _write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _arguments(tmp_path: Path) -> list[str]:
    problems = _write(tmp_path / "P.jsonl", PROBLEMS)
    programs = _write(tmp_path / "G.jsonl", PROGRAMS)
    return ["--problems", str(problems), "--programs", str(programs), "--set", "workers=1"]


def test_every_program_gets_its_line_in_order(tmp_path: Path) -> None:
    out, quarantine = tmp_path / "V.jsonl", tmp_path / "Q.jsonl"
    command = [sys.executable, "-m", "reward.judge", *_arguments(tmp_path)]
    command += ["--out", str(out), "--quarantine", str(quarantine)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["problem_id"] for line in lines] == [p["problem_id"] for p in PROGRAMS]
    assert [(line["verdict"], line["passed"], line["total"], line["score"]) for line in lines] == [
        ("accepted", 1, 1, 1.0),
        ("wrong_answer", 0, 1, -0.3),
        ("compile_error", 0, 1, -1.0),
        ("internal_error", 0, 0, 0.0),
        ("internal_error", 0, 0, 0.0),
        ("internal_error", 0, 0, 0.0),
        ("accepted", 1, 1, 1.0),
        ("wrong_answer", 0, 1, -0.3),
    ]
    assert {"level", "seconds"} <= lines[0].keys()
    assert "1 inputs but 0 outputs" in lines[3]["detail"]
    assert json.loads(quarantine.read_text())["problem_id"] == "bad"
    assert "8 programs: 3 internal_error" in done.stderr


NO_RECORDS = {
    '{"problem_id": "a"': "not JSON",
    "nothing": "not JSON",
    '{"problem_id": "a"} {"problem_id": "b"}': "not JSON",
    "[]": "not a JSON object",
    "null": "not a JSON object",
}


@pytest.mark.parametrize("text", NO_RECORDS)
@pytest.mark.parametrize("name", ["P.jsonl", "G.jsonl"])
def test_a_line_that_is_no_record_is_told_and_the_rest_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    arguments, out, path = _arguments(tmp_path), tmp_path / "V.jsonl", tmp_path / name
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, "", text, *rest]))
    assert main([*arguments, "--out", str(out)]) == FAULTY_LINES
    error = capsys.readouterr().err
    assert "1 lines are no records" in error
    assert f"{path}:3: {NO_RECORDS[text]}" in error
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    if name == "G.jsonl":
        told = lines.pop(1)
        assert told["verdict"] == "internal_error"
        assert f"{path}:3: {NO_RECORDS[text]}" in told["detail"]
    verdicts = [line["verdict"] for line in lines]
    assert verdicts == VERDICTS


@pytest.mark.parametrize("raw", [b'{"problem_id": "\xff"}', b"\xfe\xff\x00{", b"\x80abc"])
def test_a_line_that_is_no_text_is_told_and_the_rest_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], raw: bytes
) -> None:
    arguments, out, path = _arguments(tmp_path), tmp_path / "V.jsonl", tmp_path / "P.jsonl"
    path.write_bytes(raw + b"\n" + path.read_bytes())
    assert main([*arguments, "--out", str(out)]) == FAULTY_LINES
    assert f"{path}:1: not " in capsys.readouterr().err
    assert [json.loads(line)["verdict"] for line in out.read_text().splitlines()] == VERDICTS


def test_a_problem_without_a_name_or_with_anothers_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two problems of one name neither is judged: nobody knows which is meant."""
    arguments, out = _arguments(tmp_path), tmp_path / "V.jsonl"
    _write(tmp_path / "P.jsonl", [*PROBLEMS, {"question": "?"}, PROBLEMS[0]])
    assert main([*arguments, "--out", str(out)]) == FAULTY_LINES
    error = capsys.readouterr().err
    assert "P.jsonl:4: no problem_id" in error
    assert "P.jsonl:5: problem_id sum again" in error
    verdicts = [json.loads(line)["verdict"] for line in out.read_text().splitlines()]
    assert verdicts == ["internal_error"] * 6 + ["accepted", "wrong_answer"]


def test_no_file_that_is_read_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(tmp_path)
    problems = tmp_path / "P.jsonl"
    before = problems.read_text()
    assert main([*arguments, "--out", str(tmp_path / "." / "P.jsonl")]) == 1
    assert "is read too: name another file" in capsys.readouterr().err
    assert problems.read_text() == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "time=3"], "time=3 is unknown"),
        (["--set", "timeout_s"], "write KEY=VALUE"),
        (["--out", "/dev/full"], "No space left on device"),
        (["--problems", "/nowhere/P.jsonl"], "No such file"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    arguments = [*_arguments(tmp_path), "--out", str(tmp_path / "V.jsonl"), *extra]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("digits", [4301, 9131, 60_000])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("as_text", [False, True])
def test_integers_of_any_sensible_length_are_judged(
    tmp_path: Path, as_text: bool, sign: str, digits: int
) -> None:
    number = sign + "9" * digits
    cases = f'{{"fn_name": "f", "inputs": [[{digits}], [{number}]], "outputs": [{number}, 1]}}'
    cases = json.dumps(cases) if as_text else cases
    problems, programs, out = tmp_path / "P", tmp_path / "G", tmp_path / "V"
    problems.write_text(f'{{"problem_id": "n", "input_output": {cases}}}')
    right = f"def f(n): return {sign}(10**n - 1) if n == {digits} else n // n"
    _write(programs, [{"problem_id": "n", "code": code} for code in (right, "def f(n): return n")])
    files = ["--problems", str(problems), "--programs", str(programs), "--out", str(out)]
    assert main([*files, "--set", "workers=1"]) == 0
    verdicts = [json.loads(line)["verdict"] for line in out.read_text().splitlines()]
    assert verdicts == ["accepted", "wrong_answer"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("9" * 200_001, "an integer of 200001 digits"),
        ("-" + "9" * 1_000_000, "an integer of 1000001 digits"),
    ],
)
def test_a_line_that_cannot_be_read_costs_only_itself(
    tmp_path: Path, value: str, reason: str
) -> None:
    arguments, out = _arguments(tmp_path), tmp_path / "V.jsonl"
    for name in ("P.jsonl", "G.jsonl"):
        path = tmp_path / name
        path.write_text(f'{{"problem_id": "deep", "input_output": {value}}}\n' + path.read_text())
    assert main([*arguments, "--out", str(out)]) == 0
    first, second, *_ = map(json.loads, out.read_text().splitlines())
    assert (first["problem_id"], first["verdict"]) == ("deep", "internal_error")
    assert reason in first["detail"]
    assert second["verdict"] == "accepted"


def _broken_gzip(content: bytes, damage: str) -> bytes:
    packed = gzip.compress(content * 1000)
    match damage:
        case "truncated":
            return packed[: len(packed) // 2]
        case "corrupt":
            return packed[:20] + bytes(byte ^ 0xFF for byte in packed[20:40]) + packed[40:]
        case "wrong checksum":
            return packed[:-8] + b"\0" * 8
        case _:
            return content


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "wrong checksum", "no gzip"])
def test_a_damaged_file_is_refused_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    arguments = _arguments(tmp_path)
    damaged = tmp_path / "G.jsonl.gz"
    damaged.write_bytes(_broken_gzip(os.urandom(50).hex().encode() + b"\n", damage))
    arguments[3] = str(damaged)
    assert main([*arguments, "--out", str(tmp_path / "V.jsonl")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and str(damaged) in message


@pytest.mark.parametrize(
    ("option", "name", "says"),
    [
        ("--quarantine", "no/such/Q.jsonl", "No such file or directory"),
        ("--quarantine", ".", "Is a directory"),
        ("--quarantine", "P.jsonl", "is read too"),
        ("--quarantine", "old.jsonl", "is --out too"),
        ("--out", "no/such/V.jsonl", "No such file or directory"),
        ("--out", "G.jsonl", "is read too"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, name: str, says: str
) -> None:
    arguments = _arguments(tmp_path)
    old = tmp_path / "old.jsonl"
    old.write_text("earlier verdicts\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    outputs = {"--out": str(old), "--quarantine": str(tmp_path / "Q.jsonl")}
    outputs[option] = str(tmp_path / name)
    assert main([*arguments, *(part for pair in outputs.items() for part in pair)]) == 1
    error = capsys.readouterr().err
    assert f"{option} {tmp_path / name}" in error
    assert says in error
    assert ": name a" in error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_link_to_no_file_yet_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "V.jsonl"
    link.symlink_to(tmp_path / "target.jsonl")
    assert main([*_arguments(tmp_path), "--out", str(link), "--quarantine", str(tmp_path)]) == 1
    assert link.is_symlink()
    assert not link.exists()

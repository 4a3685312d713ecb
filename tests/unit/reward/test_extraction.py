"""The comparison of extraction rules, on real programs and on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from reward.extract import Extract, Shown
from reward.extraction import ALL_MODELS, main

SUM = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
RIGHT = "a, b = map(int, input().split())\nprint(a + b)\n"
WRONG = "print(0)\n"
DEFINED = "def main():\n    a, b = map(int, input().split())\n    print(a + b)\nmain()\n"


def _blocks(*programs: str, language: str = "python") -> str:
    return "\n".join(f"```{language}\n{program}```" for program in programs)


RESPONSES = {
    "one": _blocks(RIGHT),
    "wrong": _blocks(WRONG),
    "improved": _blocks(WRONG, RIGHT),
    "with a call": _blocks(DEFINED, "print(sum([1, 2]))\n"),
    "plain": _blocks(RIGHT, language=""),
    "none": "I cannot.",
}


def _compared(folder: Path, responses: list[dict[str, Any]]) -> Any:
    problems = folder / "P.jsonl"
    problems.write_text(json.dumps({"problem_id": "sum", "input_output": SUM}) + "\n")
    file, table = folder / "R.jsonl", folder / "T.json"
    file.write_text("".join(json.dumps(one) + "\n" for one in responses))
    arguments = ["--problems", str(problems), "--responses", str(file), "--json", str(table)]
    assert main([*arguments, "--set", "workers=1"]) == 0
    return json.loads(table.read_text())


def test_each_rules_programs_are_found_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = [
        {"problem_id": "sum", "response": text, "model": "m"} for text in RESPONSES.values()
    ]
    unknown = {"problem_id": "other", "response": _blocks(RIGHT), "model": "n"}
    rows = _compared(tmp_path, [*responses, unknown])

    def counts(model: str, shows: Shown, how: Extract) -> tuple[int, ...]:
        (row,) = [
            one for one in rows if (one["model"], one["shows"], one["rule"]) == (model, shows, how)
        ]
        return tuple(row[key] for key in ("responses", "programs", "judged", "accepted"))

    for how in (Extract.ONLY, Extract.LAST):
        assert counts("m", Shown.ONE, how) == (2, 2, 2, 1)
        assert counts("m", Shown.PLAIN, how) == (1, 1, 1, 1)
        assert counts("m", Shown.NONE, how) == (1, 0, 1, 0)
        assert counts("n", Shown.ONE, how) == (1, 1, 0, 0)
        assert counts(ALL_MODELS, Shown.ONE, how) == (3, 3, 2, 1)
    assert {how: counts("m", Shown.SEVERAL, how) for how in Extract if how != Extract.BARE} == {
        Extract.ONLY: (2, 0, 2, 0),
        Extract.FIRST: (2, 2, 2, 1),
        Extract.LAST: (2, 2, 2, 1),
        Extract.LONGEST: (2, 2, 2, 2),
        Extract.CLASS_OR_DEF: (2, 2, 2, 2),
    }
    printed = capsys.readouterr().out
    assert "| m | several blocks | 2 | 0.0%, 0.0% | 100.0%, 50.0% |" in printed


@pytest.mark.parametrize("line", ['{"problem_id": "sum"}', '{"response": "x"}', "no JSON"])
def test_a_line_that_is_no_response_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "P.jsonl").write_text(json.dumps({"problem_id": "sum", "input_output": SUM}))
    (tmp_path / "R.jsonl").write_text(line)
    files = ["--problems", str(tmp_path / "P.jsonl"), "--responses", str(tmp_path / "R.jsonl")]
    assert main(files) == 1
    assert f"{tmp_path / 'R.jsonl'}:1: " in capsys.readouterr().err


def test_a_table_that_cannot_be_written_is_told_before_anything_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "P.jsonl").write_text(json.dumps({"problem_id": "sum", "input_output": SUM}))
    (tmp_path / "R.jsonl").write_text(json.dumps({"problem_id": "sum", "response": "x"}))
    files = ["--problems", str(tmp_path / "P.jsonl"), "--responses", str(tmp_path / "R.jsonl")]
    assert main([*files, "--json", str(tmp_path / "no" / "T.json")]) == 1
    printed = capsys.readouterr()
    assert f"--json {tmp_path / 'no' / 'T.json'} cannot be written" in printed.err
    assert not printed.out

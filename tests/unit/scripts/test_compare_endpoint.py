"""What a comparison of two evaluations refuses before it starts a server."""

import sys
from pathlib import Path

import pytest
from compare_endpoint import parse

PROBLEM = (
    '{"task_id": "HumanEval/0", "prompt": "def f(n):\\n", "entry_point": "f",'
    ' "canonical_solution": "    return n\\n",'
    ' "test": "def check(candidate):\\n    assert candidate(1) == 1\\n"}\n'
)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--benchmark", "humaneval"], "write it as KEY=VALUE"),
        (["--benchmark", "other=P.jsonl"], "--benchmark 'other' is unknown"),
        (["--benchmark", "humaneval=absent.jsonl"], "absent.jsonl"),
        (["--protocol", "other"], "--protocol 'other' is unknown"),
        (["--model", "absent"], "--model absent: no folder"),
        (["--endpoint", "http://127.0.0.1:9/v1"], "give the server's model as --model"),
        (["--engine", "dtype"], "--engine dtype: write it as KEY=VALUE"),
        (["--max-tokens", "0"], "--max-tokens 0: use 1 or more"),
        (["--out", "P.jsonl/out"], "P.jsonl/out"),
    ],
)
def test_bad_options_are_told_before_a_server_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    reason: str,
) -> None:
    (tmp_path / "P.jsonl").write_text(PROBLEM)
    monkeypatch.chdir(tmp_path)
    good = ["--benchmark", "humaneval=P.jsonl"]
    monkeypatch.setattr(sys, "argv", ["compare_endpoint.py", *good])
    assert parse().benchmark == good[1:]
    monkeypatch.setattr(sys, "argv", ["compare_endpoint.py", *good, *words])
    with pytest.raises(SystemExit):
        parse()
    assert reason in capsys.readouterr().err

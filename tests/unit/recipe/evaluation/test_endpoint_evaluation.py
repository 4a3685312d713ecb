"""Whole evaluations by a server that misbehaves: every problem is accounted for in the end."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.evaluation.main import main

COUNT = 8
BODY = "\n    return a + b\n"


def arguments(server: Any, problems: Path, out: Path, *more: str) -> list[str]:
    return [
        *("evaluate", "--model", "m", "--endpoint", server.url, "--out", str(out)),
        *("--benchmark", f"humaneval={problems}", "--protocol", "bigcode"),
        *("--set", "workers=1", "--concurrency", "3", *more),
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def problems(samples: dict[str, dict[str, Any]], write_lines: Callable[..., Path]) -> Path:
    record = samples["humaneval"]
    records = [
        record
        | {"task_id": f"HumanEval/{n}", "prompt": record["prompt"].replace("Add.", f"Add {n}.")}
        for n in range(COUNT)
    ]
    return write_lines("h.jsonl", *records)


def number(body: dict[str, Any]) -> int:
    """Which of the problems a request is about."""
    return next(n for n in range(COUNT) if f"Add {n}." in body["prompt"])


def test_every_problem_is_accounted_for_whatever_the_server_does(
    server: Any,
    fake_reply: Any,
    ends: Any,
    problems: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = fake_reply.of(BODY)
    too_long = fake_reply.error(400, "the prompt exceeds the model's context length of 100")
    first_replies = {
        1: fake_reply.error(429, "slow down", Retry_After="0"),
        2: fake_reply.error(500, "broken"),
        3: fake_reply(200, good.body, ends=ends.CUT),
        4: fake_reply.of(None),
        5: fake_reply(ends=ends.NEVER),
    }
    asked: Counter[int] = Counter()
    broken = True

    def reply(body: dict[str, Any]) -> Any:
        which = number(body)
        asked[which] += 1
        if which == 6:
            return too_long
        if which == 7 and broken:
            return fake_reply.error(400, "refused for now")
        return first_replies[which] if which in first_replies and asked[which] == 1 else good

    server.reply = reply
    command = arguments(server, problems, tmp_path / "out", "--request-timeout", "1")
    assert main(command) == 2
    assert "1 of 8 responses are missing (HumanEval/7: status 400" in capsys.readouterr().err
    saved = lines(tmp_path / "out" / "samples" / "humaneval.bigcode.jsonl")
    assert len(saved) == COUNT - 1

    broken = False
    asked.clear()
    assert main(command) == 0
    assert set(asked) == {7}
    assert "1 prompts were too long for the model and count as failed" in capsys.readouterr().err
    verdicts = lines(tmp_path / "out" / "verdicts" / "humaneval.bigcode.jsonl")
    assert {v["problem_id"] for v in verdicts} == {f"HumanEval/{n}" for n in range(COUNT)}
    failed = [v for v in verdicts if v["verdict"] != "accepted"]
    assert [(v["problem_id"], v["finish"]) for v in failed] == [("HumanEval/6", "prompt_too_long")]
    (scores,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (scores["problems"], scores["pass_at"]["1"]["value"]) == (COUNT, 7 / 8)


def test_what_a_server_was_not_told_to_stop_at_is_cut_here(
    server: Any, fake_reply: Any, problems: Path, tmp_path: Path
) -> None:
    server.reply = lambda body: fake_reply.of(f"{BODY}\n@cache\ndef other", "length")
    command = arguments(server, problems, tmp_path / "out", "--limit", "1")
    assert main(command) == 0
    assert "\n@" not in server.bodies[0]["stop"]
    (saved,) = lines(tmp_path / "out" / "samples" / "humaneval.bigcode.jsonl")
    assert (saved["completion"], saved["finish"]) == (BODY, "stop")


def test_an_interrupt_waits_for_no_request_and_the_same_command_goes_on(
    server: Any, fake_reply: Any, ends: Any, problems: Path, tmp_path: Path
) -> None:
    stalled = threading.Event()

    def stalling(body: dict[str, Any]) -> Any:
        if number(body) < 2:
            return fake_reply.of(BODY)
        if len(server.bodies) >= 5:  # three at once, after the two that were answered
            stalled.set()
        return fake_reply(ends=ends.NEVER)

    server.reply = stalling
    command = arguments(server, problems, tmp_path / "out")
    process = subprocess.Popen(
        [sys.executable, "-m", "recipe.evaluation", *command], stderr=subprocess.PIPE, text=True
    )
    try:
        assert stalled.wait(60)
        process.send_signal(signal.SIGINT)
        # The server never replies and a reply is waited for for ten minutes.
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped; what is done is saved" in error
    assert len(lines(tmp_path / "out" / "samples" / "humaneval.bigcode.jsonl")) == 2

    server.reply = lambda body: fake_reply.of(BODY)
    assert main(command) == 0
    verdicts = lines(tmp_path / "out" / "verdicts" / "humaneval.bigcode.jsonl")
    assert {v["problem_id"] for v in verdicts} == {f"HumanEval/{n}" for n in range(COUNT)}

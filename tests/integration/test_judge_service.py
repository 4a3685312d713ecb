"""The judge over HTTP: verl's own SandboxFusion client, a crowd of clients, the real command."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")

from aiohttp import web

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import parse_input_output
from reward.serve import application
from reward.verdict import Verdict

CASES = {"inputs": ["1 2\n", "10 -4\n", "7 7\n"], "outputs": ["3\n", "6\n", "14\n"]}
SUM = parse_input_output(CASES)
READ = "a, b = map(int, input().split())\n"
PROGRAMS = [
    READ + "print(a + b)",
    READ + "print(a - b)",
    READ + "print(a + c)",
    READ + "print(a + b",
    READ + "print(a + b)\nexit(3)",
    READ + "print(a + b if a > 5 else 0)",
    READ + "assert a != 10\nprint(a + b)",
    READ + "print(a + b)\nraise MemoryError",
    "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "print(open('/etc/passwd').read())",
]
# What verl's client makes of a test by what the library says of it.
FUSION = {
    Verdict.ACCEPTED: True,
    Verdict.WRONG_ANSWER: False,
    Verdict.RUNTIME_ERROR: -2,
    Verdict.MEMORY_LIMIT: -2,
    Verdict.TIME_LIMIT: -3,
    Verdict.COMPILE_ERROR: -4,
}


@contextmanager
def serving(judge: Judge, max_queue: int = 1024) -> Iterator[str]:
    """The service in a thread of its own; its address."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application(judge, max_queue))

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(30)
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    config = JudgeConfig(workers=2, audit_fraction=0.0, strict=True, timeout_s=2.0, max_timeouts=9)
    with Judge(config) as judge:
        yield judge


def ask(address: str, route: str, body: Any = None) -> tuple[int, Any]:
    """Status and answer; JSON where it is."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"{address}/{route}", data, timeout=120) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode()


def test_verls_unmodified_client_sees_the_librarys_verdicts(judge: Judge) -> None:
    fusion = pytest.importorskip("verl.utils.reward_score.sandbox_fusion")
    programs = [f"# {i}\n{PROGRAMS[i % len(PROGRAMS)]}" for i in range(200)]
    with serving(judge) as address:

        def score(code: str) -> tuple[float, list[Any]]:
            return fusion.compute_score(
                f"{address}/run_code", None, 1024, f"```python\n{code}\n```", dict(CASES), timeout=4
            )

        with ThreadPoolExecutor(8) as pool:
            scores = list(pool.map(score, programs))
    for code, (value, tests) in zip(programs, scores, strict=True):
        result = judge.judge(SUM, code)
        wanted = [FUSION[outcome.verdict] for outcome in result.outcomes]
        if result.verdict == Verdict.COMPILE_ERROR:
            wanted = [-4] * 3
        statuses = [_status(test) for test in tests]
        assert statuses == wanted, code
        assert value == sum(one is True for one in wanted) / 3
        assert (value == 1.0) == (result.verdict == Verdict.ACCEPTED)


def _status(test: dict[str, Any]) -> Any:
    names = {
        "success": True,
        "wrong_answer": False,
        "runtime_error": -2,
        "timeout": -3,
        "compile_error": -4,
        "compile_error_skipped": -4,
    }
    return names[test["status"]]


def test_run_code_tells_what_a_program_wrote(judge: Judge) -> None:
    with serving(judge) as address:
        code = "import sys\nprint(input())\nprint('note', file=sys.stderr)\n1 / 0\n"
        status, answer = ask(
            address, "run_code", {"code": code, "stdin": "x", "language": "python"}
        )
        assert (status, answer["status"], answer["compile_result"]) == (200, "Failed", None)
        run = answer["run_result"]
        assert (run["stdout"], run["return_code"], run["status"]) == ("x\n", 1, "Finished")
        assert "note" in run["stderr"] and "ZeroDivisionError" in run["stderr"]
        loop = {"code": "while True: pass", "language": "python", "run_timeout": 0.3}
        assert ask(address, "run_code", loop)[1]["run_result"]["status"] == "TimeLimitExceeded"
        big = {"code": "x = bytearray(200 << 20)\nprint(len(x))", "language": "python"}
        assert ask(address, "run_code", big | {"memory_limit_MB": 64})[1]["status"] == "Failed"
        assert ask(address, "run_code", big | {"memory_limit_MB": 512})[1]["status"] == "Success"


FUSION_TESTS = [
    {"input": {"stdin": i}, "output": {"stdout": o}}
    for i, o in zip(CASES["inputs"], CASES["outputs"], strict=True)
]


@pytest.mark.parametrize(
    "data",
    [
        {"input_output": CASES},
        {"input_output": json.dumps(CASES)},
        {"test": FUSION_TESTS},
        {"test": json.dumps(FUSION_TESTS)},
    ],
)
def test_submit_judges_on_the_tests_that_come_with_it(judge: Judge, data: Any) -> None:
    with serving(judge) as address:
        for code, accepted, passed in ((PROGRAMS[0], True, 3), (PROGRAMS[5], False, 2)):
            body = {
                "dataset": "any",
                "id": 7,
                "completion": f"So:\n```python\n{code}\n```",
                "config": {"language": "python", "provided_data": data},
            }
            status, answer = ask(address, "submit", body)
            assert (status, answer["id"], answer["accepted"]) == (200, 7, accepted)
            assert sum(test["passed"] for test in answer["tests"]) == passed
            assert answer["extracted_code"] == code + "\n"


def test_judge_gives_the_librarys_result(judge: Judge) -> None:
    with serving(judge) as address:
        problem = {"problem_id": "1", "input_output": CASES}
        for code in PROGRAMS:
            mine = judge.judge(SUM, code)
            status, answer = ask(address, "judge", {"problem": problem, "code": code})
            assert status == 200
            assert (answer["verdict"], answer["passed"], answer["score"]) == (
                str(mine.verdict),
                mine.passed,
                mine.score,
            )
        response = {"problem": problem, "response": "no program"}
        assert ask(address, "judge", response)[1]["verdict"] == "compile_error"


@pytest.mark.parametrize(
    ("route", "body", "reason"),
    [
        ("run_code", b"{", "Expecting"),
        ("run_code", b"\x80{}", "utf-8"),
        ("run_code", [], "not a JSON object"),
        ("run_code", {}, "code is missing"),
        ("run_code", {"code": "1", "language": "cpp"}, "only python"),
        ("run_code", {"code": "1", "run_timeout": "x"}, "run_timeout"),
        ("run_code", {"code": "1", "memory_limit_MB": float("inf")}, "memory_limit_MB"),
        ("run_code", {"code": "1", "files": {"a": "b"}}, "no files"),
        ("submit", {"completion": "x"}, "provided_data"),
        ("submit", {"completion": "x", "config": {"provided_data": {"test": [1]}}}, "input.stdin"),
        ("judge", {"code": "1"}, "problem is missing"),
        ("judge", {"problem": {"input_output": CASES}}, "give the program as `code`"),
        ("judge", {"problem": {"input_output": "{}"}, "code": "1"}, "must be lists"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(
    judge: Judge, route: str, body: Any, reason: str
) -> None:
    with serving(judge) as address:
        status, answer = ask(address, route, body)
    assert status == 422
    assert reason in answer["error"]


def test_a_crowd_loses_nothing_though_a_zygote_is_killed_and_the_queue_is_full() -> None:
    config = JudgeConfig(workers=2, audit_fraction=0.0)
    with Judge(config) as judge, serving(judge, max_queue=16) as address:
        refused: list[int] = []

        def insist(number: int) -> str:
            code = f"# {number}\n" + PROGRAMS[number % 2]
            body = {"problem": {"problem_id": "1", "input_output": CASES}, "code": code}
            while True:
                status, answer = ask(address, "judge", body)
                if status == 200:
                    return answer["verdict"]
                assert status == 429
                refused.append(number)
                time.sleep(0.05)

        with ThreadPoolExecutor(64) as pool:
            futures = [pool.submit(insist, number) for number in range(256)]
            _kill_a_zygote(judge)
            verdicts = [future.result() for future in futures]
        assert verdicts == ["accepted", "wrong_answer"] * 128
        assert refused
        health = ask(address, "health")[1]
        assert (health["queue"], health["max_queue"]) == (0, 16)
        metrics = ask(address, "metrics")[1]
        assert 'judge_verdicts_total{verdict="accepted"} 128.0' in metrics
        assert f'status="429"}} {float(len(refused))}' in metrics
        assert ask(address, "v1/ping") == (200, "pong")


def _kill_a_zygote(judge: Judge) -> None:
    while (zygote := judge._idle.get()) is None:
        judge._idle.put(None)
    os.kill(zygote.pid, signal.SIGKILL)
    judge._idle.put(zygote)


def test_bodies_that_wait_are_bounded_in_all(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward.service.MAX_HELD_BYTES", 1000)
    with serving(judge) as address:
        small, large = {"code": "print(1)"}, {"code": "#" * 2000}
        assert ask(address, "run_code", small)[0] == 200
        assert ask(address, "run_code", large)[0] == 429


def test_the_command_listens_on_the_loopback() -> None:
    command = [sys.executable, "-m", "reward.serve", "--port", "0", "--set", "workers=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            match = re.fullmatch(
                r"judging at (http://127\.0\.0\.1:\d+)\n", server.stdout.readline()
            )
            assert match
            assert ask(match[1], "health")[1]["status"] == "ok"
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0

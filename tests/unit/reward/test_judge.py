"""Verdicts of real programs in the real sandbox."""

import asyncio
import os
import time
from dataclasses import replace
from typing import Any

import pytest

from reward.apps import SHOWN_CHARACTERS, compute_score, failing_test
from reward.config import JudgeConfig, JudgeConfigError
from reward.judge import Judge
from reward.problem import Problem, parse_input_output, parse_problem
from reward.verdict import Verdict as V

SUM = parse_input_output(
    {
        "inputs": [f"{i} {i + 1}\n" for i in range(10)],
        "outputs": [f"{2 * i + 1}\n" for i in range(10)],
    }
)
CALL = parse_input_output(
    {
        "fn_name": "f",
        "inputs": [[i, [1, 2]] for i in range(5)],
        "outputs": [i + 2 for i in range(5)],
    }
)
RIGHT = "a, b = map(int, input().split())\nprint(a + b)\n"


@pytest.mark.parametrize(
    ("code", "verdict", "passed"),
    [
        (RIGHT, V.ACCEPTED, 10),
        ("print(1)", V.WRONG_ANSWER, 1),
        ("a b", V.COMPILE_ERROR, 0),
        ("\0", V.COMPILE_ERROR, 0),
        ("\ud800", V.COMPILE_ERROR, 0),
        ("1/0", V.RUNTIME_ERROR, 0),
        (RIGHT + "if a > 4: 1/0", V.RUNTIME_ERROR, 5),
        (RIGHT + "exit()", V.ACCEPTED, 10),
        (RIGHT + "exit(3)", V.RUNTIME_ERROR, 0),
        (RIGHT + "raise ValueError", V.RUNTIME_ERROR, 0),
        ("x = [0] * 10**10", V.MEMORY_LIMIT, 0),
        ("while True: print('x' * 10000)", V.OUTPUT_LIMIT, 0),
        ("while True: pass", V.TIME_LIMIT, 0),
        ("exec('a b')", V.RUNTIME_ERROR, 0),
        ("eval(input())", V.RUNTIME_ERROR, 0),
    ],
)
def test_verdicts_on_stdin_programs(judge: Judge, code: str, verdict: V, passed: int) -> None:
    result = judge.judge(SUM, code)
    assert (result.verdict, result.passed, result.total) == (verdict, passed, 10)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("def f(a, b): return a + len(b)", V.ACCEPTED),
        ("class Solution:\n    def f(self, a: int, b: List[int]): return a + len(b)", V.ACCEPTED),
        ("from numpy import int64\ndef f(a, b): return int64(a + len(b))", V.ACCEPTED),
        ("print('noise')\ndef f(a, b):\n    print('noise')\n    return a + len(b)", V.ACCEPTED),
        ("def f(a, b): return str(a + len(b))", V.WRONG_ANSWER),
        ("def f(a, b): return a", V.WRONG_ANSWER),
        ("def f(a): return a", V.RUNTIME_ERROR),
        ("def g(a, b): return a", V.RUNTIME_ERROR),
        ("class E(int):\n    __eq__ = lambda *a: True\ndef f(a, b): return E()", V.WRONG_ANSWER),
        ("def f(a, b):\n    x = []\n    x.append(x)\n    return x", V.WRONG_ANSWER),
    ],
)
def test_verdicts_on_functions(judge: Judge, code: str, verdict: V) -> None:
    assert judge.judge(CALL, code).verdict == verdict


def test_what_one_test_leaves_behind_cannot_fail_another(judge: Judge) -> None:
    code = "import builtins\nassert not hasattr(builtins, 'seen')\nbuiltins.seen = 1\n" + RIGHT
    result = judge.judge(SUM, code)
    assert (result.verdict, result.passed) == (V.ACCEPTED, 10)


def test_no_program_is_a_compile_error(judge: Judge) -> None:
    result = judge.judge(SUM, None)
    assert (result.verdict, result.score, result.total) == (V.COMPILE_ERROR, -1.0, 10)


def test_strict_mode_agrees_with_the_fast_path() -> None:
    with Judge(JudgeConfig(workers=1, strict=True, timeout_s=1.0)) as strict:
        assert strict.judge(SUM, RIGHT).verdict == V.ACCEPTED
        assert strict.judge(SUM, "print(1)").passed == 1
        assert strict.judge(CALL, "def f(a, b): return a + len(b)").verdict == V.ACCEPTED


def test_an_audit_finds_a_program_that_passes_only_with_company() -> None:
    code = (
        "import builtins\n"
        "builtins.runs = getattr(builtins, 'runs', 0) + 1\n"
        "x = int(input())\n"
        "print(x if builtins.runs == x else 0)\n"
    )
    numbers = [str(number) for number in range(1, 7)]
    problem = parse_input_output({"inputs": numbers, "outputs": numbers})
    with Judge(JudgeConfig(workers=1, audit_fraction=1.0)) as auditing:
        assert auditing.judge(problem, code).verdict == V.WRONG_ANSWER
        assert (auditing.audits, auditing.audit_alarms) == (1, 1)


def test_a_dead_zygote_is_replaced_and_the_program_judged() -> None:
    with Judge(JudgeConfig(workers=1, audit_fraction=0.0)) as judge:
        zygote = judge._idle.get()
        assert zygote is not None
        os.kill(zygote.pid, 9)
        judge._idle.put(zygote)
        assert judge.judge(SUM, RIGHT).verdict == V.ACCEPTED


def test_many_programs_are_judged_at_once_without_blocking_the_loop(judge: Judge) -> None:
    async def run() -> tuple[list[str], float]:
        longest = 0.0
        tasks = [
            asyncio.create_task(judge.judge_async(SUM, RIGHT if i % 2 else "print(0)"))
            for i in range(40)
        ]
        while not all(task.done() for task in tasks):
            before = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - before)
        return [str(task.result().verdict) for task in tasks], longest

    verdicts, longest = asyncio.run(run())
    assert verdicts == ["wrong_answer", "accepted"] * 20
    assert longest < 0.5


def test_compute_score_has_the_agreed_form() -> None:
    truth = '{"inputs": ["1\\n"], "outputs": ["1\\n"]}'
    settings = {"workers": 1, "timeout_s": 1.0}

    def score(answer: str, truth: str = truth) -> dict:
        return asyncio.run(compute_score("apps", answer, truth, {"problem_id": "1"}, **settings))

    right = score("```python\nprint(input())\n```")
    agreed = ("score", "verdict", "passed", "total", "judge_failed", "solved")
    assert {k: right[k] for k in agreed} == {
        "solved": 1.0,
        "score": 1.0,
        "verdict": "accepted",
        "passed": 1,
        "total": 1,
        "judge_failed": 0.0,
    }
    wrong = score("no code")
    assert (wrong["score"], wrong["verdict"], wrong["solved"]) == (-1.0, "compile_error", 0.0)
    broken = score("```python\nprint(1)\n```", "{}")
    assert (broken["score"], broken["judge_failed"], broken["solved"]) == (0.0, 1.0, 0.0)


def test_compute_score_refuses_unknown_settings() -> None:
    with pytest.raises(JudgeConfigError, match="time_out=3"):
        asyncio.run(compute_score("apps", "", "{}", None, time_out=3))


CHECKED = parse_problem(
    {
        "prompt": 'def f(xs):\n    """Sort in place, return the sum."""\n',
        "entry_point": "f",
        "test": "def check(candidate):\n    xs = [3, 1, 2]\n    assert candidate(xs) == 6\n"
        "    assert xs == [1, 2, 3]\n    assert math.isclose(candidate([0.1, 0.2]), 0.3)\n",
    }
)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("    xs.sort()\n    return sum(xs)\n", V.ACCEPTED),
        ("def f(xs):\n    xs.sort()\n    return sum(xs)\n", V.ACCEPTED),
        ("    return sum(xs)\n", V.WRONG_ANSWER),
        ("    xs.sort()\n    return None\n", V.WRONG_ANSWER),
        ("    raise ValueError\n", V.RUNTIME_ERROR),
        ("    return sum(xs\n", V.COMPILE_ERROR),
        ("    while True: pass\n", V.TIME_LIMIT),
        ("def g(xs): pass\n\n1/0", V.RUNTIME_ERROR),
        ("    return [0] * 10**11\n", V.MEMORY_LIMIT),
        ("    import os\n    os._exit(0)\n", V.RUNTIME_ERROR),
    ],
)
def test_verdicts_on_assertions(judge: Judge, code: str, verdict: V) -> None:
    assert judge.judge(CHECKED, code).verdict == verdict


def test_quick_problems_overtake_slow_ones_in_the_queue() -> None:
    done: list[str] = []
    slow, quick = replace(SUM, problem_id="slow"), replace(SUM, problem_id="quick")
    with Judge(JudgeConfig(workers=1, audit_fraction=0.0)) as judge:
        judge._learn(slow, 5.0)
        judge._learn(quick, 0.01)
        first = judge.submit(SUM, "import time\ntime.sleep(0.2)\n" + RIGHT)
        futures = [judge.submit(problem, RIGHT) for problem in (slow, slow, quick, quick)]
        for future, name in zip(futures, ("slow", "slow", "quick", "quick"), strict=True):
            future.add_done_callback(lambda _, name=name: done.append(name))  # type: ignore[misc]
        assert first.result().verdict == V.ACCEPTED
    assert done == ["quick", "quick", "slow", "slow"]


def test_the_time_of_a_program_is_bounded_whatever_its_tests() -> None:
    cases = {"inputs": [f"{i}\n" for i in range(60)], "outputs": ["x"] * 60}
    config = JudgeConfig(
        workers=1, audit_fraction=0.0, timeout_s=0.3, max_timeouts=99, program_timeout_s=1.5
    )
    with Judge(config) as judge:
        result = judge.judge(parse_input_output(cases), "while True: pass")
    assert (result.verdict, result.total, len(result.outcomes)) == (V.TIME_LIMIT, 60, 60)
    assert result.seconds < 4


def test_a_broken_sandbox_is_an_internal_error_after_the_retries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Judge(JudgeConfig(workers=1, audit_fraction=0.0, retries=1)) as judge:
        zygote = judge._idle.get()
        assert zygote is not None
        zygote.close()
        judge._idle.put(None)
        monkeypatch.setattr("sys.executable", "/bin/false")
        result = judge.judge(SUM, RIGHT)
    assert (result.verdict, result.score, result.judge_failed) == (V.INTERNAL_ERROR, 0.0, True)
    assert "did not start" in result.detail


@pytest.mark.parametrize(
    ("problem", "code", "shown"),
    [
        (SUM, RIGHT, ""),
        (SUM, "print(1)", "verdict: wrong answer\ninput:\n1 2\nexpected:\n3"),
        (SUM, RIGHT + "if a > 4: 1/0", "verdict: runtime error\ninput:\n5 6\nexpected:\n11"),
        (SUM, "a b", ""),  # no test was run
        (
            CALL,
            "def f(a, b): return 2",
            "verdict: wrong answer\ninput:\n[1, [1, 2]]\nexpected:\n3",
        ),
    ],
)
def test_the_first_failing_test_is_told_to_whoever_may_know_it(
    judge: Judge, problem: Problem, code: str, shown: str
) -> None:
    assert failing_test(problem, judge.judge(problem, code)) == shown


def test_a_long_test_is_told_in_part(judge: Judge) -> None:
    long = parse_input_output({"inputs": ["1" * 5000], "outputs": ["2" * 5000]})
    shown = failing_test(long, judge.judge(long, "print(0)"))
    assert f"input:\n{'1' * SHOWN_CHARACTERS} …\nexpected:\n{'2' * SHOWN_CHARACTERS} …" in shown


@pytest.mark.parametrize("show", [False, True])
@pytest.mark.parametrize("truth", ["{}", '{"inputs": ["1"], "outputs": ["2"]}'])
def test_every_answer_has_the_same_keys(show: bool, truth: str) -> None:
    settings: dict[str, Any] = {"pool": "process", "workers": 1, "show_failing_test": show}
    got = asyncio.run(compute_score("apps", "nothing", truth, **settings))
    assert ("failing_test" in got) is show

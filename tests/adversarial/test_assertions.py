"""Assertions decide, in every form: no candidate ends them early, redefines or evades them."""

import pytest

from reward.judge import Judge
from reward.problem import Problem, parse_problem
from reward.verdict import Verdict

PROMPT = 'def f(n):\n    """n squared."""\n'
RIGHT = "def f(n): return n * n"
WRONG = "def f(n): return 0"


def _problem(test: str, prompt: str = PROMPT) -> Problem:
    return parse_problem({"entry_point": "f", "prompt": prompt, "test": test})


FORMS = {
    "check": "def check(candidate):\n    assert candidate(3) == 9\n    assert candidate(2) == 4\n",
    "check by name": "def check(candidate):\n    assert f(3) == 9\n",
    "at the top": "assert f(3) == 9\nassert f(2) == 4\n",
    "a helper at the top": "def same(a, b):\n    assert a == b\nsame(f(3), 9)\nsame(f(2), 4)\n",
    "pytest functions": "def test_f():\n    assert f(3) == 9\ndef test_g():\n    assert f(2) == 4",
    "a pytest class": "class TestF:\n    def test_f(self):\n        assert f(3) == 9\n",
    "set up by pytest": (
        "class TestF:\n    def setup_method(self):\n        self.n = 3\n"
        "    def test_f(self):\n        assert f(self.n) == 9\n"
    ),
    "an asynchronous function": "async def test_f():\n    assert f(3) == 9\n",
    "unittest": (
        "import unittest\nclass TestCases(unittest.TestCase):\n"
        "    def test_1(self):\n        self.assertEqual(f(3), 9)\n"
        "    def test_2(self):\n        self.assertEqual(f(2), 4)\n"
    ),
    "unittest with main": (
        "import unittest\nclass T(unittest.TestCase):\n"
        "    def test_1(self):\n        self.assertEqual(f(3), 9)\n"
        "if __name__ == '__main__':\n    unittest.main()\n"
    ),
    "unittest with an unguarded main": (
        "from unittest import TestCase\nimport unittest\nclass T(TestCase):\n"
        "    def setUp(self):\n        self.n = 3\n"
        "    def test_1(self):\n        self.assertEqual(f(self.n), 9)\nunittest.main()\n"
    ),
    "unittest with subtests": (
        "import unittest\nclass T(unittest.TestCase):\n    def test_1(self):\n"
        "        for n in (0, 3):\n            with self.subTest(n=n):\n"
        "                self.assertEqual(f(n), n * n)\n"
    ),
    "unittest by inheritance": (
        "import unittest\nclass Base(unittest.TestCase):\n    n = 3\nclass T(Base):\n"
        "    def test_1(self):\n        self.assertEqual(f(self.n), 9)\n"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_runs_as_it_is_meant(one_worker: Judge, form: str) -> None:
    problem = _problem(FORMS[form])
    assert one_worker.judge(problem, RIGHT).verdict == Verdict.ACCEPTED
    wrong = one_worker.judge(problem, WRONG)
    assert wrong.verdict == Verdict.WRONG_ANSWER
    raising = one_worker.judge(problem, "def f(n): raise ValueError")
    assert raising.verdict == Verdict.RUNTIME_ERROR


LOOPS = {
    "zip and map": (
        "    for got, want in zip(map(candidate, [1, 2]), [1, 4]):\n        assert got == want\n"
    ),
    "all": "    assert all(map(lambda n: candidate(n) == n * n, [1, 2]))\n",
    "a generator": "    for got in (candidate(n) for n in [2, 3]):\n        assert got in (4, 9)\n",
    "a list": "    assert list(map(candidate, [2, 3]))[:2] == [4, 9] or not [1]\n",
    "no counterexample": "    assert not any(map(lambda n: candidate(n) != n * n, [1, 2]))\n",
    "sorted": "    for got in sorted(map(candidate, [2, 3])):\n        assert got in (4, 9)\n",
    "next with a default": "    assert next(map(candidate, [2]), 4) == 4\n",
}


@pytest.mark.parametrize("raised", ["StopIteration", "StopAsyncIteration", "next(iter([]))"])
@pytest.mark.parametrize("loop", LOOPS)
def test_no_exception_ends_a_tests_loop(one_worker: Judge, loop: str, raised: str) -> None:
    problem = _problem("def check(candidate):\n" + LOOPS[loop])
    for how in (f"raise {raised}", f"return {raised}"):
        code = f"def f(n):\n    {how}\n"
        verdict = one_worker.judge(problem, code).verdict
        assert verdict != Verdict.ACCEPTED, how
    assert one_worker.judge(problem, RIGHT).verdict == Verdict.ACCEPTED


def test_a_test_may_expect_the_end_of_an_iteration(one_worker: Judge) -> None:
    test = "def check(candidate):\n    try:\n        candidate(1)\n        assert False\n"
    problem = _problem(test + "    except StopIteration:\n        pass\n")
    verdict = one_worker.judge(problem, "def f(n): raise StopIteration").verdict
    assert verdict == Verdict.ACCEPTED


HELPER = "def same(a, b):\n    return a == b\n\n"
TEST = "def check(candidate):\n    assert same(candidate(3), 9)\n"
TEST += "    assert not same(candidate(2), 5)\n"
PROMPTS = {
    "compiles": HELPER + PROMPT,
    "ends with a head": HELPER + "def f(n):\n",
    "ends with a comment": HELPER + "def f(n):\n    # n squared\n",
    "ends within a docstring": HELPER + 'def f(n):\n    """n squared\n',
    "ends within a call": HELPER + "import math\n\ndef f(n):\n    return int(\n",
    "ends with a decorator": HELPER + "@staticmethod\n",
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_helpers_of_the_prompt_are_the_tests_own(one_worker: Judge, prompt: str) -> None:
    problem = _problem(TEST, PROMPTS[prompt])
    lenient = "def same(a, b): return a != 4 or b != 5\ndef f(n): return {2: 4}.get(n)\n"
    for code in (lenient, "same = lambda a, b: b == 9\ndef f(n): return None\n"):
        verdict = one_worker.judge(problem, code).verdict
        assert verdict != Verdict.ACCEPTED, code


@pytest.mark.parametrize(
    "test",
    [
        "def check(candidate):\n    for n in []:\n        assert candidate(n) == n\n",
        "def check(candidate):\n    if len('x') > 1:\n        assert candidate(2) == 4\n",
        "def check(candidate):\n    assert 2 + 2 == 4\n",
        "import unittest\nclass T(unittest.TestCase):\n    @unittest.skipIf(1 + 1, 'no')\n"
        "    def test_1(self):\n        self.assertEqual(f(2), 4)\n",
        "import no_such_module\nassert f(2) == 4\n",
    ],
)
def test_a_test_that_asks_nothing_accepts_nothing(one_worker: Judge, test: str) -> None:
    for code in (RIGHT, WRONG):
        result = one_worker.judge(_problem(test), code)
        assert (result.verdict, result.score) == (Verdict.INTERNAL_ERROR, 0.0), result.detail


LATE_CALLS = {
    "finally": (
        "def check(candidate):\n    try:\n        assert candidate(3) == 9\n"
        "    finally:\n        candidate(0)\n"
    ),
    "tear down": (
        "import unittest\nclass T(unittest.TestCase):\n    def test_1(self):\n"
        "        self.assertEqual(f(3), 9)\n    def tearDown(self):\n        f(0)\n"
    ),
    "another thread": (
        "import threading\ndef check(candidate):\n    try:\n        assert candidate(3) == 9\n"
        "    finally:\n        t = threading.Thread(target=candidate, args=(0,))\n"
        "        t.start()\n        t.join()\n"
    ),
}


@pytest.mark.parametrize("form", LATE_CALLS)
def test_what_a_candidate_raises_is_never_the_tests_fault(one_worker: Judge, form: str) -> None:
    """Not if another call comes between the exception and the end of the test, either."""
    code = "def f(n):\n    if n == 3:\n        import no_such_module\n    return n * n\n"
    verdict = one_worker.judge(_problem(LATE_CALLS[form]), code).verdict
    assert verdict == Verdict.RUNTIME_ERROR
    assert one_worker.judge(_problem(LATE_CALLS[form]), RIGHT).verdict == Verdict.ACCEPTED


def test_a_candidate_that_ends_itself_fails_though_the_test_catches_all(one_worker: Judge) -> None:
    test = "def check(candidate):\n    try:\n        candidate(1)\n    except:\n        pass\n"
    test += "    else:\n        assert False\n"
    for end in ("import os; os._exit(0)", "import os; os.abort()"):
        result = one_worker.judge(_problem(test), f"def f(n):\n    {end}\n")
        assert result.verdict == Verdict.RUNTIME_ERROR
    raising = one_worker.judge(_problem(test), "def f(n): raise ValueError")
    assert raising.verdict == Verdict.ACCEPTED


def test_a_candidate_that_sleeps_or_spins_between_calls_runs_out_of_time(one_worker: Judge) -> None:
    problem = _problem("def check(candidate):\n    assert candidate(3) == 9\n")
    for act in ("while True: pass", "import time; time.sleep(99)"):
        code = f"def f(n):\n    {act}\n"
        verdict = one_worker.judge(problem, code).verdict
        assert verdict == Verdict.TIME_LIMIT


RAISING = """
class BadError(ValueError):
    pass
class Worse(BadError):
    def __init__(self, code):
        super().__init__("code %d" % code)
def f(n):
    if n == -1: raise BadError("negative")
    if n == -2: raise Worse(5)
    if n == -3: return {}["k"]
    if n == -4: return "\\u00e9".encode("ascii")
    if n == -5: return __import__("json").loads("{")
    return n * n
"""
AWAITING = {
    "raises": "    with pytest.raises(BadError, match='neg'):\n        f(-1)\n",
    "a base of its own": "    with pytest.raises(BadError):\n        f(-2)\n",
    "a base of Python's": "    with pytest.raises(ValueError):\n        f(-2)\n",
    "one of several": "    with pytest.raises((TypeError, Worse)):\n        f(-2)\n",
    "suppress": "    with contextlib.suppress(Worse):\n        f(-2)\n        assert False\n",
    "isinstance": (
        "    try:\n        f(-2)\n    except Exception as error:\n"
        "        assert isinstance(error, Worse) and str(error) == 'code 5'\n"
        "    else:\n        assert False\n"
    ),
    "except": (
        "    try:\n        f(-1)\n        assert False\n    except BadError as error:\n"
        "        assert str(error) == 'negative' and error.args == ('negative',)\n"
    ),
    "a parameter": (
        "    for kind in (BadError,):\n        with pytest.raises(kind):\n            f(-1)\n"
    ),
    "an argument": (
        "    try:\n        f(-3)\n        assert False\n    except LookupError as error:\n"
        "        assert str(error) == \"'k'\" and error.args == ('k',)\n"
    ),
    "many arguments": (
        "    with pytest.raises(UnicodeEncodeError) as info:\n        f(-4)\n"
        "    assert info.value.encoding == 'ascii'\n"
    ),
    "the library's": "    with pytest.raises(json.JSONDecodeError):\n        f(-5)\n",
}
EVADING = {
    "no error": "def f(n): return n * n",
    "another error": "def f(n):\n    if n < 0: raise RuntimeError('BadError')\n    return n * n",
    "a value": "BadError = Worse = 0\ndef f(n): return n * n if n > 0 else BadError",
    "a class that it returns": "class BadError(Exception): pass\ndef f(n): return BadError('neg')",
    "a class that is no class": (
        "class M(type):\n    def mro(cls): return [cls, *ValueError.__mro__]\n"
        "class BadError(ValueError, metaclass=M): __name__ = 3\n"
        "def f(n): raise BadError()"
    ),
}


@pytest.mark.parametrize("how", AWAITING)
def test_an_exception_is_of_its_classes(one_worker: Judge, how: str) -> None:
    """Those of Python, and those of the program's that the test names."""
    body = f"    assert f(3) == 9\n{AWAITING[how]}"
    head = f"import contextlib, json{', pytest' * ('pytest' in body)}\n"
    for form in ("def test_f():\n", "def check(candidate):\n"):
        problem = _problem(f"{head}{form}{body}")
        result = one_worker.judge(problem, RAISING)
        assert result.verdict == Verdict.ACCEPTED, result.detail
    for name, program in EVADING.items():
        verdict = one_worker.judge(problem, program).verdict
        assert verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR), (name, verdict)


def test_a_class_that_a_test_makes_objects_of_is_the_programs(one_worker: Judge) -> None:
    """Else the test would talk to its own stand-in, and accept every program."""
    test = (
        "point = Point(1, 2)\nassert isinstance(point, Point)\nassert point.args == (1, 2)\n"
        "assert f(3) == 9\n"
    )
    assert one_worker.judge(_problem(test), RIGHT).verdict == Verdict.RUNTIME_ERROR

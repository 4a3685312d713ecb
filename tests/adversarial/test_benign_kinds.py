"""Right programs with habits that judges trip over: noise, limits, names, destructors, stacks."""

import sys

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import parse_input_output, parse_problem
from reward.verdict import Verdict

COUNT = 40
SQUARES = parse_input_output(
    {"inputs": [f"{n}\n" for n in range(COUNT)], "outputs": [f"{n * n}\n" for n in range(COUNT)]}
)
CALLS = parse_input_output(
    {
        "fn_name": "f",
        "inputs": [[n] for n in range(COUNT)],
        "outputs": [n * n for n in range(COUNT)],
    }
)
CHECKED = parse_problem(
    {
        "entry_point": "f",
        "prompt": 'def f(n):\n    """n squared."""\n',
        "test": f"def check(g):\n    for n in range({COUNT}):\n        assert g(n) == n * n\n",
    }
)
ANSWER = "n = int(input())\nprint(n * n)\n"

PROGRAMS = {
    "progress on stderr": "import sys\nfor _ in range(400): print('x' * 100, file=sys.stderr)\n",
    "a traceback a test": (
        "import sys, traceback\nfor _ in range(500):\n    try: 1 / 0\n"
        "    except ZeroDivisionError: traceback.print_exc()\n"
    ),
    "descriptor 2": "import os\nfor _ in range(40): os.write(2, b'x' * 1000)\n",
    "warnings": (
        "import warnings\nwarnings.simplefilter('always')\n"
        "for i in range(300): warnings.warn('x' * 100)\n"
    ),
    "the stack without a limit": (
        "import resource as r\nr.setrlimit(r.RLIMIT_STACK, (r.RLIM_INFINITY, r.RLIM_INFINITY))\n"
    ),
    "a stack of 1 GiB": (
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 30, -1))\n"
    ),
    "the stack at its hard limit": (
        "import resource\nhard = resource.getrlimit(resource.RLIMIT_STACK)[1]\n"
        "resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))\n"
    ),
    "its file": "import os\nos.path.dirname(os.path.abspath(__file__))\n",
    "its folder": "from pathlib import Path\nPath(__file__).resolve().parent.joinpath('in.txt')\n",
    "its place on the path": "import os, sys\nsys.path.append(os.path.dirname(__file__))\n",
    "its name": "import os, sys\nassert __file__.endswith(os.path.basename(sys.argv[0]))\n",
}


@pytest.mark.parametrize("habit", PROGRAMS)
def test_habits_of_programs_are_no_failure(one_worker: Judge, habit: str) -> None:
    assert one_worker.judge(SQUARES, PROGRAMS[habit] + ANSWER).verdict == Verdict.ACCEPTED


@pytest.mark.parametrize(
    "noise",
    [
        "for _ in range(400): print('debug' * 20)",
        "import sys\n    for _ in range(400): print('debug' * 20, file=sys.stderr)",
        "import sys\n    sys.stdout.write('x' * 40000)",
    ],
)
def test_debug_prints_in_calls_are_charged_to_their_call(one_worker: Judge, noise: str) -> None:
    code = f"def f(n):\n    {noise}\n    return n * n\n"
    for problem in (CALLS, CHECKED):
        assert one_worker.judge(problem, code).verdict == Verdict.ACCEPTED


def test_one_test_that_floods_is_still_stopped(one_worker: Judge) -> None:
    code = "import sys\nsys.stderr.write('x' * (3 << 20))\n" + ANSWER
    assert one_worker.judge(SQUARES, code).verdict in (Verdict.OUTPUT_LIMIT, Verdict.RUNTIME_ERROR)


LAST_WORDS = {
    "an instance": "class C:\n    def __del__(self): print(n * n)\nn = int(input())\nc = C()\n",
    "through a module": (
        "import sys\nclass C:\n    def __del__(self): sys.stdout.write(str(n * n))\n"
        "n = int(input())\nc = C()\n"
    ),
    "in a list": (
        "class C:\n    def __init__(self, n): self.n = n\n"
        "    def __del__(self): print(self.n * self.n)\nheld = [C(int(input()))]\n"
    ),
    "of a buffer": (
        "import sys\nclass Out:\n    def __init__(self): self.parts = []\n"
        "    def __del__(self): sys.stdout.write(''.join(self.parts))\n"
        "out = Out()\nn = int(input())\nout.parts.append(str(n * n))\n"
    ),
    "in a cycle": (
        "class C:\n    def __del__(self): print(self.n * self.n)\n"
        "c = C()\nc.self = c\nc.n = int(input())\ndel c\n"
    ),
    "by a finaliser": (
        "import weakref\nclass C: pass\nn = int(input())\nc = C()\n"
        "weakref.finalize(c, lambda: print(n * n))\n"
    ),
    "to the first stream": (
        "import io, sys\nsys.stdout = io.StringIO()\n"
        "class C:\n    def __del__(self): print(n * n)\nn = int(input())\nc = C()\n"
    ),
}


@pytest.mark.parametrize("last", LAST_WORDS)
def test_what_destructors_print_at_the_end_is_output(one_worker: Judge, last: str) -> None:
    assert one_worker.judge(SQUARES, LAST_WORDS[last]).verdict == Verdict.ACCEPTED


@pytest.mark.parametrize("stack_mib", [256, 512, 1023, 1024])
def test_threads_with_large_stacks_start(one_worker: Judge, stack_mib: int) -> None:
    code = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\n"
        f"threading.stack_size({stack_mib} << 20)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "def main():\n    depth(20000)\n    n = int(input())\n    print(n * n)\n"
        "t = threading.Thread(target=main)\nt.start()\nt.join()\n"
    )
    few = parse_input_output({"inputs": ["3", "5"], "outputs": ["9", "25"]})
    assert one_worker.judge(few, code).verdict == Verdict.ACCEPTED


def test_a_thread_may_recurse_through_c_code_with_the_default_memory() -> None:
    code = (
        "import sys, threading\nfrom functools import lru_cache\nsys.setrecursionlimit(10**6)\n"
        "threading.stack_size(512 << 20)\n"
        "@lru_cache(None)\ndef depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "def main():\n    assert depth(50000) == 50000\n    n = int(input())\n    print(n * n)\n"
        "t = threading.Thread(target=main)\nt.start()\nt.join()\n"
    )
    if sys.version_info >= (3, 12):
        pytest.skip("Python 3.12 limits recursion through C code itself")
    few = parse_input_output({"inputs": ["3"], "outputs": ["9"]})
    with Judge(JudgeConfig(workers=1, audit_fraction=0.0)) as judge:
        assert judge.judge(few, code).verdict == Verdict.ACCEPTED

"""A program that ends badly has failed, whatever it writes into the page that says how it ended."""

import pytest

from reward.judge import Judge
from reward.problem import parse_input_output
from reward.verdict import Verdict

CASES = [(1, 2), (7, 7), (1000000, 1), (3, 5), (11, 4), (0, 5)]  # enough for the fast path
SUM = parse_input_output(
    {"inputs": [f"{a} {b}\n" for a, b in CASES], "outputs": [f"{a + b}\n" for a, b in CASES]}
)
CALL = parse_input_output(
    {"fn_name": "f", "inputs": [list(case) for case in CASES], "outputs": [a + b for a, b in CASES]}
)
PAGES = """
import gc, mmap, os, sys
gc.unfreeze()
pages = [o for o in gc.get_objects() if type(o) is mmap.mmap]
assert pages
"""
FORGE = """
for p in pages:
    for i in range(32): p[4 + 48 * i] = 1
    p[0], p[2] = {phase}, {position}
"""
CLAIMS = {
    "all done": FORGE.format(phase=3, position=0),
    "one past the last": FORGE.format(phase=2, position=len(CASES)),
    "far past the last": FORGE.format(phase=2, position=31),
    "the next": "for p in pages: p[4 + 48 * p[2]] = 1; p[2] += 1\n",
    "still compiling": FORGE.format(phase=1, position=9),
}
ENDS = {
    "spins": ("while True: pass", {Verdict.TIME_LIMIT}),
    "sleeps": ("import time; time.sleep(99)", {Verdict.TIME_LIMIT}),
    "exits with 3": ("os._exit(3)", {Verdict.RUNTIME_ERROR}),
    "segfaults": ("import ctypes; ctypes.string_at(0)", {Verdict.RUNTIME_ERROR}),
}
READ = "a, b = map(int, input().split())\nprint(a + b, flush=True)\n"


def _program(claim: str, how: str, on: int | None) -> str:
    """Right output, then a claim and a bad end, on every test or on the one with that input."""
    body = "".join(f"    {line}\n" for line in (CLAIMS[claim] + how).splitlines())
    return PAGES + READ + ("if True:\n" if on is None else f"if a == {on}:\n") + body


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("on", [None, CASES[0][0]], ids=["every test", "the first"])
def test_the_kernel_is_believed_not_the_page(one_worker: Judge, claim: str, on: int | None) -> None:
    for end in ("spins", "exits with 3"):
        how, verdicts = ENDS[end]
        if claim == "still compiling":  # it contradicts itself
            verdicts = verdicts | {Verdict.COMPILE_ERROR, Verdict.RUNTIME_ERROR}
        assert one_worker.judge(SUM, _program(claim, how, on)).verdict in verdicts, end


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("on", [CASES[2][0], CASES[-1][0]], ids=["a middle one", "the last"])
def test_no_bad_end_hides_among_good_tests(one_worker: Judge, end: str, on: int) -> None:
    how, verdicts = ENDS[end]
    assert one_worker.judge(SUM, _program("the next", how, on)).verdict in verdicts


@pytest.mark.parametrize("end", ["spins", "exits with 3"])
def test_results_of_calls_are_not_believed_either(one_worker: Judge, end: str) -> None:
    how, verdicts = ENDS[end]
    act = "".join(f"        {line}\n" for line in (CLAIMS["all done"] + how).splitlines())
    code = (
        f"{PAGES}\ndef f(a, b):\n    for fd in (3, *range(4, 64, 1)):\n"
        "        try: os.pwrite(fd, str(a + b).encode(), 0)\n        except OSError: pass\n"
        f"    if True:\n{act}\n    return a + b\n"
    )
    assert one_worker.judge(CALL, code).verdict in verdicts

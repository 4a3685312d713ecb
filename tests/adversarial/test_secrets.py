"""What cannot be computed cannot be printed: tests, siblings' outputs and siblings' sources."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import parse_input_output, parse_problem
from reward.verdict import Verdict

MARK = "token-"
TOKENS = [f"{MARK}{i}{'5f1c9e77a2' * 30}{i}-" for i in range(2)]
SECRET = parse_input_output({"inputs": list("ab"), "outputs": TOKENS})
CALLED = parse_input_output({"fn_name": "f", "inputs": [[c] for c in "ab"], "outputs": TOKENS})
CHECKED = parse_problem(
    {
        "entry_point": "f",
        "prompt": 'def f(c):\n    """Cannot be computed."""\n',
        "test": "def check(candidate):\n"
        + "".join(
            f"    assert candidate({c!r}) == {t!r}\n" for c, t in zip("ab", TOKENS, strict=True)
        ),
    }
)
TABLE = f"T = dict(zip('ab', {TOKENS!r}))\n"

# Collects everything readable around the interpreter's objects and the C library's heap in `seen`:
# mincore says which pages are there, so that nothing unmapped is touched.
SCAN = f"""
import ctypes, gc, re
libc = ctypes.CDLL(None, use_errno=True)
gc.unfreeze()
PAGE, STEP = 4096, 1 << 18
one = ctypes.create_string_buffer(1)
def there(page):
    return libc.mincore(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), one) == 0
libc.sbrk.restype = ctypes.c_void_p
top = libc.sbrk(ctypes.c_long(0)) // PAGE * PAGE - PAGE
starts = {{id(o) // STEP * STEP for o in gc.get_objects()}}
starts |= {{id(v) // STEP * STEP for o in gc.get_objects() if type(o) is dict for v in o.values()}}
starts |= set(range(top - (64 << 20), top, STEP))
seen, known = set(), set()
pattern = re.compile(rb'{MARK[:3]}' + rb'{MARK[3:]}' + rb'[0-9a-f]{{300,}}-')
for start in sorted(starts):
    for page in range(start, start + STEP, PAGE):
        if page in known or not there(page):
            continue
        known.add(page)
        end = page + 2 * PAGE if there(page + PAGE) else page + PAGE
        seen |= {{m.decode() for m in pattern.findall(ctypes.string_at(page, end - page))}}
"""
PRINT = f"{SCAN}\nk = 'ab'.index(input())\nhits = [s for s in seen if s[{len(MARK)}] == str(k)]\n"
PRINT += "print(hits[0] if hits else 'none')\n"
CALL = f"{SCAN}\ndef f(c):\n    hits = [s for s in seen if s[{len(MARK)}] == str('ab'.index(c))]\n"
CALL += "    return hits[0] if hits else 'none'\n"


def test_the_scan_finds_what_is_in_its_own_memory(one_worker: Judge) -> None:
    """A control: with the tokens put together in the program itself, the scan wins."""
    for code, problem in ((PRINT, SECRET), (CALL, CALLED)):
        parts = f"held = [bytearray(t.encode()) for t in {TOKENS!r}]\n"
        assert one_worker.judge(problem, parts + code).verdict == Verdict.ACCEPTED


SIBLINGS = {
    "printed": (SECRET, TABLE + "print(T[input()])"),
    "printed in pieces": (SECRET, TABLE + "for c in T[input()]: print(c, end='', flush=True)"),
    "returned": (CALLED, TABLE + "def f(c): return T[c]"),
    "returned to assertions": (CHECKED, TABLE + "def f(c): return T[c]"),
    "raised": (SECRET, TABLE + "print(T[input()])\nraise type(T['a'], (Exception,), {})"),
    "printed to stderr": (SECRET, TABLE + "import sys\nprint(T, file=sys.stderr)"),
    "did not compile": (SECRET, TABLE + "("),
}


@pytest.mark.parametrize("sibling", SIBLINGS)
def test_nothing_of_a_sibling_is_left_in_memory(one_worker: Judge, sibling: str) -> None:
    problem, code = SIBLINGS[sibling]
    one_worker.judge(problem, code)
    for thief, target in ((PRINT, SECRET), (CALL, CHECKED)):
        assert one_worker.judge(target, thief).verdict == Verdict.WRONG_ANSWER


# Each defines `source`, the test program, where it can find it.
SPIES = {
    "standard input": "import sys\nsource = sys.stdin.read()",
    "descriptor 0": "import os\nsource = os.read(0, 1 << 20).decode()",
    "any descriptor": (
        "import os\nsource = ''\nfor fd in range(1000):\n"
        "    try: source += os.pread(fd, 1 << 20, 0).decode('latin-1')\n    except OSError: pass"
    ),
    "frames": (
        "import sys\nsource, f = '', sys._getframe()\nwhile f:\n"
        "    source += repr(f.f_locals) + repr(f.f_globals); f = f.f_back"
    ),
    "the collector": (
        "import gc\ngc.unfreeze()\nsource = ' '.join(repr(vars(o)) for o in gc.get_objects()"
        " if hasattr(o, '__dict__') and type(o).__module__ != 'builtins')"
    ),
    "bytes and text": (
        "import gc\ngc.unfreeze()\nsource = ''\nfor o in gc.get_objects():\n"
        "    for r in gc.get_referents(o):\n"
        "        if type(r) in (bytes, str) and len(r) > 500: source += str(r)"
    ),
    "memory": SCAN + "source = ' '.join(seen)",
    "the parent": "import os\nsource = open(f'/proc/{os.getppid()}/mem', 'rb').read(1).decode()",
}


@pytest.mark.parametrize("spy", SPIES)
def test_a_candidate_has_never_had_its_test(one_worker: Judge, spy: str) -> None:
    hunt = f"import re\nhits = re.findall(r'{MARK[:3]}' + r'{MARK[3:]}[0-9a-f]{{300,}}-', source)\n"
    answer = f"def f(c):\n    found = [h for h in hits if h[{len(MARK)}] == str('ab'.index(c))]\n"
    code = f"{SPIES[spy]}\n{hunt}{answer}    return found[0] if found else None\n"
    assert one_worker.judge(CHECKED, code).verdict != Verdict.ACCEPTED


LISTENER = """
import os, threading
heard = []
def listen():
    while True:
        for fd in (0, 1, 2):
            try: heard.append(os.pread(fd, 1 << 16, 0).decode())
            except OSError: pass
threading.Thread(target=listen, daemon=True).start()
def f(n):
    said = [line for text in heard for line in text.split('\\n') if line.startswith('want')]
    return int(said[-1].split()[1]) if said else 0
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_a_test_prints_is_not_heard(one_worker: Judge, stream: str) -> None:
    """It waits after each line, long enough for a thread of the candidate to read it."""
    test = f"""
import sys, time
def check(candidate):
    for given, wanted in ((3, 9), (2, 4)):
        print('want', wanted, file=sys.{stream}, flush=True)
        time.sleep(0.02)
        assert candidate(given) == wanted
"""
    talking = parse_problem({"entry_point": "f", "prompt": "", "test": test})
    assert one_worker.judge(talking, LISTENER).verdict == Verdict.WRONG_ANSWER
    right = "def f(n): return n * n"
    assert one_worker.judge(talking, right).verdict == Verdict.ACCEPTED


# What leaves a mark on files that stay open, and whether it is there.
MARKS = {
    "flags": (
        "for fd in (0, 1, 2): fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)",
        "any(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK for fd in (0, 1, 2))",
    ),
    "locks": (
        "for fd in (0, 1, 2): fcntl.flock(fd, fcntl.LOCK_EX)",
        "locked(os.open('/dev/null', os.O_RDONLY))",
    ),
    "positions": (
        "for fd in (0, 1, 2): os.lseek(fd, 77, 0)",
        "any(os.lseek(fd, 0, 1) == 77 for fd in (0, 1, 2))",
    ),
}
LOCKED = """
import fcntl, os
def locked(fd):
    try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError: return True
    return False
"""
MARKED = {
    "called": parse_input_output({"fn_name": "f", "inputs": [[0]], "outputs": [True]}),
    "checked": parse_problem({"entry_point": "f", "prompt": "", "test": "assert f(0) is True\n"}),
}


@pytest.mark.parametrize("form", MARKED)
@pytest.mark.parametrize("mark", MARKS)
def test_nothing_of_a_sibling_is_left_on_open_files(
    one_worker: Judge, mark: str, form: str
) -> None:
    leave, look = MARKS[mark]
    one_worker.judge(MARKED[form], f"{LOCKED}{leave}\ndef f(n): return {look}\n")
    seen = one_worker.judge(MARKED[form], f"{LOCKED}def f(n): return {look}\n")
    assert seen.verdict == Verdict.WRONG_ANSWER, seen.detail


GUESS = "import {0}\ndef f(): return {1}\n"
RANDOM = {"python": ("random", "random.random()"), "numpy": ("numpy", "numpy.random.random()")}


@pytest.mark.parametrize("source", RANDOM)
def test_no_candidate_shares_its_tests_random_numbers(source: str) -> None:
    """Here numpy's generator is in the memory that all processes are forked from."""
    module, draw = RANDOM[source]
    test = f"import {module}\ndef check(candidate):\n    assert candidate() == {draw}\n"
    problem = parse_problem({"entry_point": "f", "prompt": "", "test": test})
    with Judge(JudgeConfig(workers=1, packages="numpy,numpy.random", audit_fraction=0.0)) as judge:
        for _ in range(2):
            result = judge.judge(problem, GUESS.format(module, draw))
            assert (result.verdict, result.detail) == (Verdict.WRONG_ANSWER, "AssertionError")


PAGES = """
import gc, mmap, sys
gc.unfreeze()
pages = [o for o in gc.get_objects() if type(o) is mmap.mmap]
f = sys._getframe()
while f:
    for v in list(f.f_locals.values()):
        p = getattr(v, 'page', None)
        if isinstance(p, mmap.mmap): pages.append(p)
        if isinstance(getattr(p, 'page', None), mmap.mmap): pages.append(p.page)
    f = f.f_back
"""


@pytest.mark.parametrize("offset", [52, 1537, 1540, 2048, 4000])
def test_nothing_of_a_sibling_is_left_in_the_shared_page(one_worker: Judge, offset: int) -> None:
    short = ["7c1d", "90ab", "3e55", "b2f0"]
    problem = parse_input_output({"inputs": list("abcd"), "outputs": short})
    left = ",".join(short)
    table = f"print(dict(zip('abcd', {short!r}))[input()])\n"
    write = f"for p in pages: p[{offset}:{offset + len(left)}] = {left.encode()!r}\n"
    assert one_worker.judge(problem, PAGES + "assert pages\n" + write + table).verdict in (
        Verdict.ACCEPTED,
        Verdict.WRONG_ANSWER,  # where it overwrote its own record
        Verdict.RUNTIME_ERROR,
    )
    read = f"t = bytes(pages[0][{offset}:{offset + len(left)}]).decode('latin-1').split(',')\n"
    steal = "k = 'abcd'.index(input())\nprint(t[k] if len(t) > k else 'none')\n"
    assert one_worker.judge(problem, PAGES + read + steal).verdict == Verdict.WRONG_ANSWER


@pytest.mark.parametrize(
    ("name", "count"),
    [("humaneval/HumanEval.jsonl.gz", 164), ("mbpp/mbpp_sanitized.jsonl", 427)],
)
def test_no_completion_that_reads_its_input_passes_a_benchmark(
    shared_data: Path, one_worker: Judge, name: str, count: int
) -> None:
    """The generic completion: take the test from standard input and look the answers up there."""
    problems = list(_checked(shared_data / name))
    assert len(problems) == count
    for record in problems[:: count // 20]:
        entry = record["entry_point"]
        code = LOOK_UP.replace("ENTRY", entry)
        assert one_worker.judge(parse_problem(record), code).verdict != Verdict.ACCEPTED


LOOK_UP = """
import ast, sys, json
text = sys.stdin.read()
table = {}
try:
    for node in ast.walk(ast.parse(json.loads(text)['test'])):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Call):
            try: key = repr([ast.literal_eval(a) for a in node.left.args])
            except ValueError: continue
            table[key] = ast.literal_eval(node.comparators[0])
except ValueError:
    pass
def ENTRY(*args):
    return table[repr(list(args))]
"""


def _checked(path: Path) -> Iterator[dict]:
    import gzip
    import json

    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        yield from map(json.loads, lines)

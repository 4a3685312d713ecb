"""Test programs that import pytest have the verdicts that pytest itself gives them."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import MalformedProblem, parse_problem
from reward.sandbox import client
from reward.verdict import Verdict

FORMS: dict[str, str] = yaml.safe_load(Path(__file__).with_name("pytest_forms.yaml").read_text())
PROGRAMS = {
    "right": "def f(n): return n * n\n",
    "wrong": "def f(n): return 0\n",
    "raising": "def f(n): raise ValueError('no')\n",
}
EXITS = "exits"
"""The form that ends pytest, and all other files with it."""
FAILED = {Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR}
PROMPT = 'def f(n):\n    """n squared."""\n'


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(JudgeConfig(workers=2, timeout_s=4.0, audit_fraction=0.0, retries=0)) as judge:
        yield judge


@pytest.fixture(scope="module")
def pytests_own(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, bool]]:
    """Per form and program, whether pytest finds no failure: one run of it over all of them."""
    folder = tmp_path_factory.mktemp("forms")
    found = {form: dict.fromkeys(PROGRAMS, form != EXITS) for form in FORMS}
    names = {}
    for number, form in enumerate(FORMS):
        for kind, program in PROGRAMS.items() if form != EXITS else ():
            names[f"test_{number}_{kind}"] = form, kind
            (folder / f"test_{number}_{kind}.py").write_text(program + FORMS[form])
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(folder)]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    command += ["--junitxml", "all.xml", "-o", "junit_family=xunit1"]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
    for case in ElementTree.parse(folder / "all.xml").iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            place = Path(case.get("file") or f"{case.get('name')}".replace(".", "/")).stem
            form, kind = names[place]
            found[form][kind] = False
    return found


def test_the_table_holds_many_forms() -> None:
    assert len(FORMS) >= 60


@pytest.mark.parametrize("form", FORMS)
def test_a_form_has_the_verdict_that_pytest_gives_it(
    judge: Judge, pytests_own: Mapping[str, dict[str, bool]], form: str
) -> None:
    """Except that what passes for all, or for none, is the problem's fault."""
    passes = pytests_own[form]
    says_something = passes["right"] and not all(passes.values())
    try:
        problem = parse_problem({"entry_point": "f", "prompt": PROMPT, "test": FORMS[form]})
    except MalformedProblem:
        assert not says_something
        return
    futures = {kind: judge.submit(problem, program) for kind, program in PROGRAMS.items()}
    for kind, future in futures.items():
        result = future.result()
        if not says_something:
            assert result.verdict == Verdict.INTERNAL_ERROR, (kind, passes)
        elif passes[kind]:
            assert result.verdict == Verdict.ACCEPTED, (kind, result.detail)
        else:
            failed = (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR)
            assert result.verdict in failed, (kind, result.detail)


GENUINE = """
import pytest
@pytest.fixture(params=[3, 2])
def n(request):
    return request.param
@pytest.mark.parametrize("plus", [0])
def test_f(n, plus):
    assert f(n) == pytest.approx(n * n)
    with pytest.raises(TypeError, match="no square"):
        f("x")
"""
HONEST = """
def f(n):
    if not isinstance(n, int): raise TypeError("no square")
    return n * n
"""
TAMPERING = {
    "a pytest of its own": (
        "import sys, types\nmock = types.ModuleType('pytest')\n"
        "mock.raises = mock.approx = mock.fixture = lambda *a, **k: None\n"
        "sys.modules['pytest'] = sys.modules['_pytest'] = mock\ndef f(n): return 0\n"
    ),
    "another finder": (
        "import sys\nclass Finder:\n    def find_spec(self, name, path=None, target=None):\n"
        "        raise SystemExit(0)\nsys.meta_path.insert(0, Finder())\ndef f(n): return 0\n"
    ),
    "a finder that waits for pytest": (
        "import gc\nfor one in gc.get_objects():\n    if type(one).__name__ == 'PackageFinder':\n"
        "        one.specs.clear()\ndef f(n): return 0\n"
    ),
    "an exception of pytest's by name": (
        "def f(n): raise type('Skipped', (BaseException,), {'__module__': 'builtins'})('no')\n"
    ),
    "an expected failure by name": "def f(n): raise type('XFailed', (Exception,), {})('no')\n",
    "a missing fixture by name": (
        "def f(n): raise type('FixtureLookupError', (type('Skipped', (Exception,), {}),), {})\n"
    ),
    "an end by name": "def f(n): raise type('Exit', (Exception,), {})('no')\n",
    "an interrupt": "def f(n): raise KeyboardInterrupt\n",
    "an exit": "def f(n): raise SystemExit(0)\n",
    "its end": "import os\ndef f(n): os._exit(0)\n",
    "what equals everything": (
        "class E(int):\n    def __eq__(self, o): return True\n    __ne__ = __sub__ = __eq__\n"
        "    def __abs__(self): return 0\ndef f(n): return E(0)\n"
    ),
    "not a number": "def f(n): return float('nan')\n",
    "an infinity": "def f(n): return float('inf')\n",
    "the path to pytest": (
        "import sys, glob\nfor at in sys.path + glob.glob('/**/site-packages', recursive=True):\n"
        "    sys.path.append(at)\nimport pytest\npytest.raises = pytest.approx = None\n"
        "def f(n): return 0\n"
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_candidate_has_no_power_over_the_tests_pytest(judge: Judge, how: str) -> None:
    problem = parse_problem({"entry_point": "f", "prompt": PROMPT, "test": GENUINE})
    failed = (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR)
    assert judge.judge(problem, TAMPERING[how]).verdict in failed
    assert judge.judge(problem, HONEST).verdict == Verdict.ACCEPTED


MADE_OF_RESULTS = {
    "parameters": '@pytest.mark.parametrize("a, b", f(3))\n',
    "parameters of a class": '@pytest.mark.parametrize("a, b", f(3))\nclass TestF:\n ',
    "generated parameters": (
        "def pytest_generate_tests(metafunc):\n    metafunc.parametrize('a, b', f(3))\n"
    ),
    "generated parameters by names": (
        "def pytest_generate_tests(metafunc):\n"
        "    for names in {tuple(sorted(row)) for row in f(4)} or [f(5)]:\n"
        "        metafunc.parametrize(names, [[r[n] for n in names] for r in f(4)])\n"
    ),
    "parameters of a fixture": (
        "@pytest.fixture(params=f(3))\ndef row(request):\n    return request.param\n"
        "@pytest.fixture\ndef a(row):\n    return row[0]\n"
        "@pytest.fixture\ndef b(row):\n    return row[1]\n"
    ),
}
"""Tests of pairs a, b that are made of what the program says."""
ROWS = "def f(n): return [(1, 1), (2, 4)] if n == 3 else [{'a': 1, 'b': 1}, {'a': 2, 'b': 4}]\n"
NO_ROWS = ("5", "[]", "[()]", "[(1, 2, 3)]", "[{'c': 1}]", "[(1, 10**5000)]", "['\\ud800b']")


@pytest.mark.parametrize("how", MADE_OF_RESULTS)
def test_results_of_which_no_tests_can_be_made_are_wrong(judge: Judge, how: str) -> None:
    test = "import pytest\n" + MADE_OF_RESULTS[how]
    test += "def test_f(self, a, b):" if test.endswith(" ") else "def test_f(a, b):"
    problem = parse_problem({"entry_point": "f", "test": f"{test}\n    assert b == a * a\n"})
    assert judge.judge(problem, ROWS).verdict == Verdict.ACCEPTED
    futures = {rows: judge.submit(problem, f"def f(n): return {rows}\n") for rows in NO_ROWS}
    verdicts = {rows: future.result().verdict for rows, future in futures.items()}
    assert set(verdicts.values()) <= FAILED | {Verdict.TIME_LIMIT}, verdicts


@pytest.mark.parametrize(
    "broken",
    [
        "N = 5\n@pytest.mark.parametrize('n', N)\ndef test_f(n):\n    assert f(n) == 9\n",
        "def pytest_generate_tests(metafunc):\n    metafunc.parametrize('n', None)\n"
        "def test_f(n):\n    assert f(n) == 9\n",
        "def pytest_generate_tests(metafunc):\n    metafunc.parametrize('m', [3])\n"
        "def test_f(n):\n    assert f(n) == 9\n",
        "def pytest_generate_tests(metafunc):\n    raise ValueError\n"
        "def test_f(n=3):\n    assert f(n) == 9\n",
        "def pytest_generate_tests(metafunc):\n    metafunc.parametrize('n', 5)\n"
        "class TestF:\n    def test_f(self, n):\n        assert f(n) == 9\n"
        "class TestG(TestF):\n    pass\n",
    ],
)
def test_a_tests_own_fault_is_no_programs(judge: Judge, broken: str) -> None:
    problem = parse_problem({"entry_point": "f", "test": f"import pytest\n{broken}"})
    for program in PROGRAMS.values():
        assert judge.judge(problem, program).verdict == Verdict.INTERNAL_ERROR


SOCKET = """
import json, os, stat, struct, time
def is_socket(fd):
    try: return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError: return False
line = next(fd for fd in range(1024) if is_socket(fd))
def say(data):
    while data:
        data = data[os.write(line, data):]
def tell(*frames):
    for frame in frames:
        data = json.dumps(frame).encode()
        say(struct.pack("<I", len(data)) + data)
zero = {"result": "0", "arguments": "[0]"}
"""
ON_THE_LINE = {
    "results before it is asked": "tell(*[zero] * 50)",
    "results in place of others": "def f(n):\n    tell(zero, zero)\n    return 0",
    "that it is ready, again": "tell(*[{'ready': True}] * 50)",
    "the outcome": "say(b'[0, \"passed\"]')\ntell({'end': 0, 'detail': 'passed'})",
    "the outcome everywhere": (
        "for fd in range(1024):\n    try: os.write(fd, b'[0, \"passed\"]')\n"
        "    except OSError: pass"
    ),
    "an outcome of pytest's": (
        "tell({}, *[{'error': ['Skipped'], 'text': '', 'arguments': '[]'}] * 9)"
    ),
    "an exit of pytest's": (
        "tell({}, *[{'error': ['Exit', 'Exception'], 'text': '', 'arguments': '[]'}] * 9)"
    ),
    "a fixture that is not there": (
        "tell({}, *[{'error': ['FixtureLookupError', 'LookupError', 'Exception'], 'text': '',"
        " 'arguments': '[]'}] * 9)"
    ),
    "a package that is not there": (
        "tell({}, *[{'error': ['ImportError', 'Exception'], 'text': 'pytest',"
        " 'arguments': '[\"pytest\"]'}] * 9)"
    ),
    "an error of no class": "tell({}, *[{'error': [], 'text': 5, 'arguments': '[]'}] * 9)",
    "an error that is none": "tell({}, *[{'error': 5}] * 9)",
    "a result that is no value": "tell({}, *[{'result': '[[', 'arguments': '[0]'}] * 9)",
    "a result of no type": ("tell({}, *[{'result': '{\"object\": []}', 'arguments': '[0]'}] * 9)"),
    "a result that is nested": (
        "tell({}, {'result': '[' * 99999 + ']' * 99999, 'arguments': '[0]'})"
    ),
    "a result of many digits": "tell({}, {'result': '9' * 99999, 'arguments': '[0]'})",
    "other arguments": "tell({}, *[{'result': '9', 'arguments': '[1, 2, 3]'}] * 9)",
    "no object": "tell({}, *[[1]] * 9)",
    "no JSON": "say(struct.pack('<I', 3) + b'abc')",
    "more than there may be": "say(b'\\xff' * 8)",
    "half of a frame": "say(b'\\0')\nos.close(line)",
    "nothing more": "tell({})\nos.close(line)",
}
RETURNS_ZERO = "\ntry: f\nexcept NameError:\n    def f(n): return 0\n"
COLLECTED = """
import pytest
def pytest_generate_tests(metafunc):
    metafunc.parametrize("n, want", [(n, f(n)) for n in (3, 2)])
def test_f(n, want):
    assert want == n * n
"""


@pytest.mark.parametrize("what", ON_THE_LINE)
def test_nothing_that_a_candidate_says_by_itself_is_believed(judge: Judge, what: str) -> None:
    """On the connection to its test: neither accepted, nor taken for a fault of the test's."""
    program = f"{SOCKET}{ON_THE_LINE[what]}{RETURNS_ZERO}"
    for test in (GENUINE, COLLECTED):
        problem = parse_problem({"entry_point": "f", "prompt": PROMPT, "test": test})
        result = judge.judge(problem, program)
        assert result.verdict in FAILED | {Verdict.TIME_LIMIT}, result.detail
        assert judge.judge(problem, HONEST).verdict == Verdict.ACCEPTED


def test_a_candidate_that_answers_on_the_line_itself_is_heard(judge: Judge) -> None:
    """A control: what is said there arrives, so that the attacks above reach the test."""
    right = "tell({}, *[{'result': r, 'arguments': '[0]'} for r in ('9', '4')])\ntime.sleep(60)"
    problem = parse_problem({"entry_point": "f", "prompt": PROMPT, "test": COLLECTED})
    assert judge.judge(problem, f"{SOCKET}{right}").verdict == Verdict.ACCEPTED


CONFTEST = """
import pathlib
pathlib.Path({mark!r}).write_text("read")
def pytest_collection_modifyitems(items):
    items.clear()
"""
RUNS = """
import sys, types
from reward.sandbox import suite
module = types.ModuleType("test_program")
exec("import pytest\\ndef test_f():\\n    assert 1 == 2", module.__dict__)
try:
    suite.run(module, lambda: 0)
except AssertionError:
    print("failed")
"""


def test_no_configuration_is_read_where_pytest_is_started(tmp_path: Path, repo_root: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "tests").mkdir()
    for folder in (tmp_path, tmp_path / "tests"):
        (folder / "conftest.py").write_text(CONFTEST.format(mark=str(mark)))
    ini = "addopts = --collect-only -p conftest\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}")
    (tmp_path / "tox.ini").write_text(f"[pytest]\n{ini}")
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\naddopts = '--collect-only'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", RUNS],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.endswith("failed\n"), done.stderr
    assert not mark.exists()


def test_a_candidate_cannot_import_pytest(judge: Judge) -> None:
    """It is there for test programs only: not to be imported, nor read."""
    problem = parse_problem({"entry_point": "f", "prompt": PROMPT, "test": GENUINE})
    for attempt in (
        "import pytest",
        "import _pytest.outcomes",
        "import pluggy",
        f"open({pytest.__file__!r}).read()",
    ):
        result = judge.judge(problem, f"{attempt}\n{HONEST}")
        assert result.verdict == Verdict.RUNTIME_ERROR, attempt
        assert result.detail in ("ModuleNotFoundError", "PermissionError"), attempt


@pytest.mark.parametrize("test", [GENUINE, FORMS["a set up without the import"]])
def test_where_pytest_is_not_installed_the_verdict_says_so(
    monkeypatch: pytest.MonkeyPatch, test: str
) -> None:
    monkeypatch.setattr(client, "PYTEST", ())
    problem = parse_problem({"entry_point": "f", "prompt": PROMPT, "test": test})
    with Judge(JudgeConfig(workers=1, retries=0)) as judge:
        result = judge.judge(problem, HONEST)
    assert result.verdict == Verdict.INTERNAL_ERROR
    assert "pip install 'online-refiner[pytest]'" in result.detail


def test_an_asynchronous_test_is_run(judge: Judge) -> None:
    """Which pytest itself leaves to its plugins."""
    test = "import pytest\n@pytest.mark.asyncio\nasync def test_f():\n    assert f(3) == 9\n"
    problem = parse_problem({"entry_point": "f", "prompt": PROMPT, "test": test})
    assert judge.judge(problem, PROGRAMS["right"]).verdict == Verdict.ACCEPTED
    assert judge.judge(problem, PROGRAMS["wrong"]).verdict == Verdict.WRONG_ANSWER


@pytest.mark.parametrize("end", ["pytest.main([__file__])", "sys.exit(pytest.main())"])
def test_an_unguarded_main_runs_nothing_twice(judge: Judge, end: str) -> None:
    test = f"import pytest, sys\ndef test_f():\n    assert f(3) == 9\n{end}\n"
    problem = parse_problem({"entry_point": "f", "prompt": PROMPT, "test": test})
    assert judge.judge(problem, PROGRAMS["right"]).verdict == Verdict.ACCEPTED
    assert judge.judge(problem, PROGRAMS["wrong"]).verdict == Verdict.WRONG_ANSWER


@pytest.mark.parametrize(
    "test",
    [
        "def check(candidate):\n    with pytest.raises(TypeError):\n        candidate('x')\n"
        "    assert candidate(3) == pytest.approx(9)\n",
        "with pytest.raises(TypeError):\n    f('x')\nassert f(3) == pytest.approx(9)\n",
    ],
)
def test_other_forms_may_use_pytest(judge: Judge, test: str) -> None:
    problem = parse_problem(
        {"entry_point": "f", "prompt": PROMPT, "test": f"import pytest\n{test}"}
    )
    verdicts = [judge.judge(problem, program).verdict for program in PROGRAMS.values()]
    assert verdicts == [Verdict.ACCEPTED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR]

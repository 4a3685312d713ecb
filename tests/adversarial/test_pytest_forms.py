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
PROMPT = 'def f(n):\n    """n squared."""\n'


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(JudgeConfig(workers=2, timeout_s=1.0, audit_fraction=0.0, retries=0)) as judge:
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

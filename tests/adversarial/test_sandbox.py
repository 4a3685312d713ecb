"""Every program of hostile.yaml and benign.yaml, as this user and without privileges, both modes.

After each: no process, file, descriptor or shared memory more than before, and the next program is
judged right. The two modes of a user are driven one after the other, the users side by side.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

HERE = Path(__file__).resolve().parent
NOBODY = 65534
SETTINGS = {
    "workers": 1,
    "timeout_s": 0.3,
    "recycle_after": 1_000_000,  # what is there before and after a program is of one zygote
    "memory_bytes": 256 << 20,
    "output_bytes": 1 << 20,
    "audit_fraction": 0.0,
    "retries": 0,
    "max_timeouts": 1,
}
USERS = ("self", "nobody")
MODES = ("fast", "strict")
NUMPY_FOLDER = str(Path(numpy.__file__).parents[1])
INTERPRETERS = (sys.executable, "/usr/bin/python3.12", "/usr/bin/python3.11", "/usr/bin/python3")
Results = dict[str, dict[str, Any]]


def _load(name: str) -> Any:
    return yaml.safe_load((HERE / name).read_text())


def _code(case: dict[str, Any]) -> str:
    return eval(case["expression"]) if "expression" in case else case["code"]


HOSTILE, BENIGN = _load("hostile.yaml"), _load("benign.yaml")
CASES = {case["name"]: case for case in [*HOSTILE, *BENIGN]}


@pytest.fixture(scope="session")
def runs() -> Iterator[dict[tuple[str, str], "Future[Results]"]]:
    """(user, mode) -> the verdicts by case, once they are there."""
    with ThreadPoolExecutor(len(USERS)) as pool:
        yield {(user, mode): pool.submit(_drive, user, mode) for mode in MODES for user in USERS}


def _drive(user: str, mode: str) -> Results:
    interpreter: str | None = sys.executable
    uid = None
    if user == "nobody":
        interpreter, uid = _interpreter_for_nobody(), NOBODY
    if interpreter is None:
        return {}
    mark = f"pwned_{user}_{mode}"  # runs side by side must not see each other's traces
    cases = [
        {
            "name": case["name"],
            "problem": case.get("problem", "sum"),
            "code": _code(case)
            .replace("pwned", mark)
            .replace("/tmp/victim", f"/tmp/victim_{mark}"),
        }
        for case in CASES.values()
    ]
    settings = SETTINGS | {"strict": mode == "strict"}
    problems = _load("problems.yaml")
    order = {"uid": uid, "mark": mark, "settings": settings, "problems": problems, "cases": cases}
    done = subprocess.run(
        [interpreter, str(HERE / "drive.py")],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": NUMPY_FOLDER},
    )
    assert done.returncode == 0, done.stderr
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def _interpreter_for_nobody() -> str | None:
    """One of this version that user nobody may run, with numpy; None where root is not ours."""
    probe = f"import sys, numpy; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    for interpreter in INTERPRETERS if os.getuid() == 0 else ():
        if not os.path.exists(interpreter):
            continue
        try:
            done = subprocess.run(
                [interpreter, "-c", probe],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd="/",
                env={"PYTHONPATH": NUMPY_FOLDER, "OPENBLAS_NUM_THREADS": "1"},
                capture_output=True,
            )
        except PermissionError:
            continue
        if done.returncode == 0:
            return interpreter
    return None


def _line(runs: dict[tuple[str, str], "Future[Results]"], user: str, mode: str, name: str) -> Any:
    results = runs[user, mode].result()
    if not results:
        pytest.skip("needs root, and a Python of this version with numpy that user nobody may run")
    return results[name]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mode", MODES)
def test_verdict_is_honest_and_nothing_is_left_behind(
    runs: dict[tuple[str, str], "Future[Results]"], mode: str, user: str, name: str
) -> None:
    line = _line(runs, user, mode, name)
    assert line["verdict"] in CASES[name]["verdicts"], line
    assert line["residue"] == []
    assert line["next"] == "accepted"


def test_there_are_enough_programs() -> None:
    assert len(HOSTILE) >= 50
    assert len(BENIGN) >= 25
    assert all("accepted" not in case["verdicts"] for case in HOSTILE)
    assert all(case["verdicts"] == ["accepted"] for case in BENIGN)

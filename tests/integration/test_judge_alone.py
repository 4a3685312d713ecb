"""The judge stands alone: built, installed without verl or torch, and used by its commands."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

NEEDED = {"numpy", "pyyaml", "rapidfuzz", "tqdm"}
ABSENT = ("verl", "torch", "ray", "vllm", "transformers", "aiohttp", "pyarrow")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "reward", "refiner_worker", "recipe")


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own wheel, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = repo_root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder / "dist" / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel and what it declares, and nothing else."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in NEEDED:
        for file in distribution(name).files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                os.symlink(Path(str(distribution(name).locate_file(top))).resolve(), site / top)
    return venv / "bin" / "python"


def _run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd="/",
    )


def test_the_wheel_asks_for_nothing_but_small_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    asked = [
        Requirement(line.split(": ", 1)[1]) for line in lines if line.startswith("Requires-Dist")
    ]
    plain = {one.name.lower() for one in asked if one.marker is None}
    assert plain == NEEDED
    serve = {one.name.lower() for one in asked if one.marker and "serve" in str(one.marker)}
    assert serve == {"aiohttp", "prometheus_client"}


def test_nothing_else_is_there(python: Path) -> None:
    probe = f"import importlib.util as u; print([n for n in {ABSENT} if u.find_spec(n)])"
    assert _run(python, "-c", probe).stdout.strip() == "[]"


def test_the_selftest_runs(python: Path) -> None:
    done = _run(python, "-m", "reward.selftest")
    assert done.returncode == 0, done.stderr
    assert "ACTIVE   TCP is closed" in done.stdout


def test_the_command_line_judges(python: Path, tmp_path: Path) -> None:
    problems, programs, out = (tmp_path / name for name in ("P", "G", "V"))
    cases = {"inputs": ["1 2\n"], "outputs": ["3\n"]}
    problems.write_text(json.dumps({"problem_id": "sum", "input_output": cases}))
    code = "import numpy\nprint(numpy.array(input().split(), int).sum())"
    programs.write_text(json.dumps({"problem_id": "sum", "code": code}))
    files = ["--problems", str(problems), "--programs", str(programs), "--out", str(out)]
    done = _run(python, "-m", "reward.judge", *files, "--set", "workers=1")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["verdict"] == "accepted"


def test_the_library_judges(python: Path) -> None:
    code = (
        "from reward.judge import Judge\nfrom reward.config import JudgeConfig\n"
        "from reward.problem import parse_problem\n"
        "p = parse_problem({'entry_point': 'f', 'test': 'assert f(2) == 4'})\n"
        "with Judge(JudgeConfig(workers=1)) as judge:\n"
        "    print(judge.judge(p, 'def f(n): return n * n').verdict)\n"
    )
    done = _run(python, "-c", code)
    assert (done.returncode, done.stdout) == (0, "accepted\n"), done.stderr

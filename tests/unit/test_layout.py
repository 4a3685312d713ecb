"""The arrows between the packages: scripts -> recipe -> {refiner_worker, reward}."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("recipe", "refiner_worker", "reward")
PURE = ("constraint", "metrics")
ASSEMBLY = ("main", "runner", "trainer", "agent_loop", "loss")
STANDARD_LIBRARY_ONLY = (
    "reward.assertions",
    "reward.compare",
    "reward.extract",
    "reward.jsontext",
    "reward.sandbox",
    "reward.verdict",
)
# numpy is imported in the sandboxed child, for the judged programs.
ISOLATION_DEPENDENCIES = {"numpy"}
VERL_FACING = {
    "recipe.cpu",
    "recipe.online_refiner.advantage",
    "recipe.online_refiner.agent_loop",
    "recipe.online_refiner.averaging_worker",
    "recipe.online_refiner.injection",
    "recipe.online_refiner.loss",
    "recipe.online_refiner.main",
    "recipe.online_refiner.mixed_update",
    "recipe.online_refiner.queue_rows",
    "recipe.online_refiner.refiner_servers",
    "recipe.online_refiner.runner",
    "recipe.online_refiner.trainer",
    "recipe.online_refiner.trainers",
    "refiner_worker.replicas",
    "refiner_worker.shared_base",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(REPO_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Absolute dotted names of all imports, those inside functions included.

    `from a import b` yields both a and a.b, since b may be a module.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def sources(*folders: str) -> dict[str, set[str]]:
    """Imported names per module of the given top-level folders."""
    files = [path for folder in folders for path in sorted((REPO_ROOT / folder).rglob("*.py"))]
    return {
        module_name(path): set(
            imported_names(path.read_text(), module_name(path), path.name == "__init__.py")
        )
        for path in files
    }


def offences(modules: dict[str, set[str]], *forbidden: str) -> list[str]:
    return [
        f"{module} imports {name}"
        for module, names in modules.items()
        for name in sorted(names)
        if within(name, *forbidden)
    ]


def test_imports_are_read_in_every_form() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    from . import e\n    from ..g import h\n"
    assert set(imported_names(source, "x.y.z")) == {
        "a.b",
        "c",
        "c.d",
        "x.y",
        "x.y.e",
        "x.g",
        "x.g.h",
    }


def test_relative_imports_of_a_package_start_at_the_package() -> None:
    assert set(imported_names("from .m import n", "x.y", is_package=True)) == {"x.y.m", "x.y.m.n"}


@pytest.mark.parametrize(
    ("leaf", "others"),
    [("reward", ("refiner_worker", "recipe")), ("refiner_worker", ("reward", "recipe"))],
)
def test_leaves_import_neither_each_other_nor_the_recipe(
    leaf: str, others: tuple[str, ...]
) -> None:
    assert offences(sources(leaf), *others) == []


def test_nothing_imports_the_scripts_or_the_tests() -> None:
    assert offences(sources(*PACKAGES, "scripts", "tests"), "scripts", "tests") == []


def test_only_the_modules_that_face_verl_import_it() -> None:
    facing = {
        module
        for module, names in sources(*PACKAGES).items()
        if any(within(name, "verl") for name in names)
    }
    assert {module for module in facing if not within(module, *VERL_FACING)} == set()


def test_the_mathematics_does_not_know_the_trainer() -> None:
    modules = sources("recipe/online_refiner")
    pure = {
        f"recipe.online_refiner.{name}": modules[f"recipe.online_refiner.{name}"] for name in PURE
    }
    forbidden = [f"recipe.online_refiner.{name}" for name in ASSEMBLY]
    assert offences(pure, "verl", "ray", "vllm", *forbidden) == []


def test_the_core_of_the_judge_is_standard_library_only() -> None:
    core = {
        module: names
        for module, names in sources("reward").items()
        if within(module, *STANDARD_LIBRARY_ONLY)
    }
    assert core
    allowed = sys.stdlib_module_names | ISOLATION_DEPENDENCIES
    strangers = [
        f"{module} imports {name}"
        for module, names in core.items()
        for name in sorted(names)
        if name.split(".")[0] not in allowed
        and not within(name, *STANDARD_LIBRARY_ONLY)
        and name != "reward"
    ]
    assert strangers == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_found_from_any_folder(package: str, tmp_path: Path) -> None:
    """TransferQueue installs a stray folder `recipe` that must not be found first."""
    command = [sys.executable, "-c", f"import {package}; print({package}.__file__)"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == REPO_ROOT / package / "__init__.py"

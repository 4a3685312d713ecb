"""The arrows between the packages: scripts -> recipe -> {refiner_worker, reward}."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house_table import (
    GROUPS,
    arrows,
    column,
    imported_names,
    layers,
    many_parameters,
    room_of,
    rooms,
)

from recipe.online_refiner.method.registry import CONSTRAINTS

REPO_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("recipe", "refiner_worker", "reward")
CORE = "recipe.online_refiner"
ARROWS = {
    "choices": set[str](),
    "plan": {"choices"},
    "method": {"choices", "plan"},
    "refine": {"choices", "method"},
    "servers": {"choices", "plan"},
    "queue": {"choices", "method"},
    "update": {"choices", "method", "queue"},
    "run": {"choices", "plan"},
    "resolve": {"choices", "plan", "method"},
    "preflight": {"choices", "plan", "method", "resolve"},
    "contract": {"choices", "plan", "method", "resolve"},
    "entry": {*("choices", "plan", "method", "refine", "servers", "queue", "update", "run"),
              *("resolve", "preflight")},
}  # fmt: skip
"""The rooms of the core from the lowest layer upwards, and which each of them imports."""
WITHOUT_VERL_OR_RAY = ("choices", "plan", "method", "refine", "resolve", "preflight", "run",
                       "contract")  # fmt: skip
"""Rooms that import on a machine that has neither."""
STANDARD_LIBRARY_ONLY = (
    "reward.assertions",
    "reward.compare",
    "reward.containers",
    "reward.extract",
    "reward.hiding",
    "reward.inline",
    "reward.jsontext",
    "reward.marks",
    "reward.page",
    "reward.rawhtml",
    "reward.sandbox",
    "reward.tags",
    "reward.verdict",
)
# numpy is imported in the sandboxed child, for the judged programs.
ISOLATION_DEPENDENCIES = {"numpy"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NUMBERS = {
    "modules": ("modules of the core",),
    "rooms": ("rooms",),
    "arrows between modules, between rooms": ("arrows between modules", "arrows between rooms"),
    "layers of modules, of rooms": ("layers of modules", "layers of rooms"),
    "functions that take config and settings together": (
        "functions that take config and settings together",
    ),
    "functions with more than four parameters": ("functions with more than four parameters",),
}
"""Rows of ARCHITECTURE.md's plan in numbers, and what scripts/house_table.py calls them."""
VERL_FACING = {
    "recipe.acceptance.decode",
    "recipe.cpu",
    *(f"{CORE}.{name}" for name in GROUPS["entry"]),
    *(f"{CORE}.{name}" for name in ("queue", "update")),
    *(f"{CORE}.servers.{name}" for name in ("averaging_worker", "refiner_servers")),
    "refiner_worker.replicas",
    "refiner_worker.shared_base",
    "reward.math_dapo",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(REPO_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


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


def test_no_part_of_the_product_knows_the_cpu_tools() -> None:
    """A configuration names what of it a run needs."""
    product = sources("recipe/online_refiner", "refiner_worker", "reward", "recipe/data")
    assert offences(product, "recipe.cpu") == []


def test_only_the_modules_that_face_verl_import_it() -> None:
    facing = {
        module
        for module, names in sources(*PACKAGES).items()
        if any(within(name, "verl") for name in names)
    }
    assert {module for module in facing if not within(module, *VERL_FACING)} == set()


def test_every_module_has_a_room_and_imports_what_its_room_may() -> None:
    upwards = [
        f"{module} ({room_of(module)}) imports {name} ({room_of(name)})"
        for module, names in arrows(REPO_ROOT).items()
        for name in sorted(names)
        if room_of(name) not in ARROWS[room_of(module)] | {room_of(module)}
    ]
    assert upwards == []


def test_no_arrow_goes_upwards_and_none_is_listed_that_nobody_needs() -> None:
    order = list(ARROWS)
    for room, below in ARROWS.items():
        assert all(order.index(one) < order.index(room) for one in below), room
    assert rooms(REPO_ROOT) == ARROWS


def test_the_modules_of_the_core_import_each_other_in_no_circle() -> None:
    between = arrows(REPO_ROOT)
    assert layers(between).keys() == between.keys()


def test_a_circle_is_found_however_long() -> None:
    with pytest.raises(ValueError, match="a circle: a -> b -> c -> a"):
        layers({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_the_plan_keeps_to_its_size() -> None:
    assert len(ARROWS) <= 12
    assert sum(map(len, ARROWS.values())) <= 35
    assert max(layers(ARROWS).values()) <= 6


def test_the_page_on_the_architecture_lists_the_rooms_and_arrows_that_there_are() -> None:
    page = (REPO_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = page.partition("## Rooms of")[2].partition("\nPackages:")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| ")][1:]
    words = {"nothing": set[str](), "all but contract": ARROWS.keys() - {"entry", "contract"}}
    listed = {
        room_of(re.findall(r"[a-z_]+", names)[0]): words.get(imports, set(imports.split(", ")))
        for names, imports in ((cells[0], cells[2].strip()) for cells in rows)
    }
    assert listed == ARROWS


def page_on_the_architecture(start: str, end: str) -> str:
    """A part of ARCHITECTURE.md between two strings."""
    page = (REPO_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    return page.partition(start)[2].partition(end)[0]


def test_the_page_on_the_architecture_has_a_row_for_every_package() -> None:
    table = page_on_the_architecture("\nPackages:", "\n### ")
    listed = re.findall(r"^\| \[(\S+)\]\(\1\) \|", table, re.MULTILINE)
    below_recipe = {
        f"recipe/{path.parent.name}" for path in (REPO_ROOT / "recipe").glob("*/__init__.py")
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == below_recipe | set(PACKAGES) - {"recipe"}


def test_every_method_that_the_page_on_the_architecture_names_is_its_classs_own() -> None:
    classes = {
        node.name: {one.name for one in node.body if isinstance(one, FUNCTIONS)}
        for folder in PACKAGES
        for path in (REPO_ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    step = page_on_the_architecture("## Where is the step?", "## Which process")
    named = re.findall(r"`(_?[A-Z]\w*)\.(\w+)`", step)
    assert {name for name, _ in named} >= {"OnlineRefinerTrainer", "MixedActor", "EpisodeLog"}
    ours = [(name, method) for name, method in named if name != "PPOTrainer"]
    assert [one for one in ours if one[1] not in classes.get(one[0], ())] == []


def test_every_config_group_has_a_place_where_it_is_added() -> None:
    config = REPO_ROOT / CORE.replace(".", "/") / "config"
    groups = {path.name for path in config.iterdir() if path.is_dir()}
    rows = page_on_the_architecture("## Where do I add", "## Start of a run").splitlines()
    (row,) = [line for line in rows if line.startswith("| an experiment")]
    assert groups <= set(re.findall(r"`(\w+)[`:]", row)) | {"experiment"}


def test_the_functions_with_many_parameters_are_those_that_the_page_gives_a_reason_for() -> None:
    table = page_on_the_architecture("| more than four parameters |", "\n\n")
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([\w.]+)`", "".join(cells))) == sorted(many_parameters(REPO_ROOT))


def test_the_page_on_the_architecture_has_the_numbers_of_today() -> None:
    """Those of modules within a tenth: most changes move them a little."""
    table = page_on_the_architecture("### The plan in numbers", "\n| more than four")
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| ")][1:]
    assert [name.strip() for name, *_ in rows] == list(NUMBERS)
    today = column(REPO_ROOT)
    for (*_, cell), names in zip(rows, NUMBERS.values(), strict=True):
        for listed, name in zip(cell.split(","), names, strict=True):
            error = 0.1 if "modules" in name else 0.0
            assert int(listed) == pytest.approx(int(today[name]), rel=error), name


def test_what_decides_needs_neither_verl_nor_ray() -> None:
    names = [f"{CORE}.{name}" for room in WITHOUT_VERL_OR_RAY for name in GROUPS.get(room, (room,))]
    found = {
        module: imported
        for module, imported in sources(CORE.replace(".", "/")).items()
        if within(module, *names)
    }
    assert offences(found, "verl", "ray", "vllm", "transfer_queue") == []


def test_the_choices_are_standard_library_only() -> None:
    found = sources(CORE.replace(".", "/"))[f"{CORE}.choices"]
    assert {name.split(".")[0] for name in found} <= sys.stdlib_module_names


def test_no_two_rooms_of_the_core_have_a_module_or_a_class_of_one_name() -> None:
    seen: dict[str, list[str]] = {}
    folder = REPO_ROOT / CORE.replace(".", "/")
    for path in sorted(folder.rglob("*.py")):
        if path.stem.startswith("__"):
            continue
        seen.setdefault(path.stem, []).append(str(path.relative_to(folder)))
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                seen.setdefault(node.name, []).append(str(path.relative_to(folder)))
    assert {name: places for name, places in seen.items() if len(places) > 1} == {}


def test_only_the_registry_and_the_constraints_know_which_constraints_there_are() -> None:
    """A constraint is one file and one line: nothing else imports a constraint's module.

    But one that is another with a difference: `distill` is the supervised term with other targets.
    """
    modules = {one.__module__ for one in CONSTRAINTS.values()}
    assert len(modules) > 5
    found = offences(sources(CORE.replace(".", "/")), *modules)
    importers = {line.split()[0].removeprefix(f"{CORE}.method.") for line in found}
    assert importers == {"registry", "distill"}


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

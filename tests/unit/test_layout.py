"""The arrows between the packages: scripts -> recipe -> {refiner_worker, reward}."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("recipe", "refiner_worker", "reward")
CORE = "recipe.online_refiner"
ROOMS = {
    "choices": ("choices", "records", "scores"),
    "plan": ("plan", "settings", "experiments", "verl_keys"),
    "method": ("method",),
    "refine": ("refine",),
    "servers": ("servers",),
    "queue": ("queue",),
    "update": ("update",),
    "run": ("run",),
    "resolve": ("resolve",),
    "preflight": ("preflight",),
    "contract": ("contract",),
    "entry": ("main", "runner", "trainer", "late_join", "modes", "agent_loop"),
}
"""The rooms of the core from the lowest layer upwards, and the folders and modules in each."""
ARROWS = {
    "choices": set[str](),
    "plan": {"choices"},
    "method": {"choices", "plan"},
    "refine": {"choices", "plan", "method"},
    "servers": {"choices", "plan"},
    "queue": {"choices", "method"},
    "update": {"choices", "method", "queue"},
    "run": {"choices", "plan"},
    "resolve": {"choices", "plan", "method", "refine", "servers"},
    "preflight": {"choices", "plan", "method", "servers", "resolve"},
    "contract": {"choices", "plan", "method", "resolve"},
    "entry": {*("choices", "plan", "method", "refine", "servers", "queue", "update", "run"),
              *("resolve", "preflight")},
}  # fmt: skip
"""Which rooms each room may import."""
WITHOUT_VERL_OR_RAY = ("choices", "records", "scores", "plan", "settings", "experiments",
                       "verl_keys", "method", "refine", "resolve",
                       "preflight", "run", "contract")  # fmt: skip
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
    "recipe.acceptance.decode",
    "recipe.cpu",
    *(
        f"{CORE}.{name}"
        for name in ("agent_loop", "late_join", "main", "modes", "runner", "trainer")
    ),
    *(f"{CORE}.{name}" for name in ("queue", "update")),
    *(f"{CORE}.servers.{name}" for name in ("averaging_worker", "refiner_servers")),
    "refiner_worker.replicas",
    "refiner_worker.shared_base",
    "reward.math_dapo",
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


def room_of(module: str) -> str:
    """The room of a module of the core, given below it."""
    first = module.partition(".")[0]
    (room,) = [room for room, members in ROOMS.items() if first in members]
    return room


def modules_of_the_core() -> dict[str, set[str]]:
    """Each module of the core, and the modules of the core that it imports, below the core."""
    modules = {
        module.removeprefix(f"{CORE}."): names
        for module, names in sources(CORE.replace(".", "/")).items()
        if module != CORE
    }
    return {
        module: {
            name.removeprefix(f"{CORE}.")
            for name in names
            if name.removeprefix(f"{CORE}.") in modules and name != f"{CORE}.{module}"
        }
        for module, names in modules.items()
    }


def test_every_module_has_a_room_and_imports_what_its_room_may() -> None:
    upwards = [
        f"{module} ({room_of(module)}) imports {name} ({room_of(name)})"
        for module, names in modules_of_the_core().items()
        for name in sorted(names)
        if room_of(name) not in ARROWS[room_of(module)] | {room_of(module)}
    ]
    assert upwards == []


def test_no_arrow_goes_upwards_and_none_is_listed_that_nobody_needs() -> None:
    order = list(ROOMS)
    assert list(ARROWS) == order
    for room, below in ARROWS.items():
        assert all(order.index(one) < order.index(room) for one in below), room
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, names in modules_of_the_core().items():
        used[room_of(module)] |= {room_of(name) for name in names} - {room_of(module)}
    assert used == ARROWS


def test_the_modules_of_the_core_import_each_other_in_no_circle() -> None:
    between = modules_of_the_core()
    placed: set[str] = set()
    while len(placed) < len(between):
        free = {name for name, below in between.items() if name not in placed and below <= placed}
        assert free, f"a circle among {sorted(set(between) - placed)}"
        placed |= free


def test_the_plan_keeps_to_its_size() -> None:
    assert len(ROOMS) <= 12
    assert sum(map(len, ARROWS.values())) < 40
    layers: dict[str, int] = {}
    for room in ROOMS:
        layers[room] = 1 + max((layers[one] for one in ARROWS[room]), default=0)
    assert max(layers.values()) <= 9


def test_what_decides_needs_neither_verl_nor_ray() -> None:
    names = [f"{CORE}.{name}" for name in WITHOUT_VERL_OR_RAY]
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
    kinds = ("none", "static_kl", "dynamic_reward", "dynamic_advantage", "dynamic_sft", "chord",
             "distill")  # fmt: skip
    found = offences(sources(CORE.replace(".", "/")), *(f"{CORE}.method.{kind}" for kind in kinds))
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

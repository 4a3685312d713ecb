"""Which constraints there are: one line each, by the value of `constraint.kind`.

The dynamic constraint is three, told apart by `constraint.inject`. A constraint of one's own needs
no line here: `constraint.kind=package.module:Class` or `constraint.kind=path/to/file.py:Class`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig

from recipe.online_refiner.choices import Inject
from recipe.online_refiner.method.chord import Chord
from recipe.online_refiner.method.constraint import Constraint
from recipe.online_refiner.method.distill import Distill
from recipe.online_refiner.method.dynamic_advantage import DynamicAdvantage
from recipe.online_refiner.method.dynamic_reward import DynamicReward
from recipe.online_refiner.method.dynamic_sft import DynamicSft
from recipe.online_refiner.method.none import Unconstrained
from recipe.online_refiner.method.static_kl import StaticKl
from recipe.online_refiner.settings import ConfigError, Section

CONSTRAINTS: dict[str, type[Constraint]] = {
    "none": Unconstrained,
    "static_kl": StaticKl,
    f"dynamic.{Inject.REWARD}": DynamicReward,
    f"dynamic.{Inject.ADVANTAGE}": DynamicAdvantage,
    f"dynamic.{Inject.SFT}": DynamicSft,
    "distill": Distill,
    "chord": Chord,
}


def kinds() -> list[str]:
    """The values of `constraint.kind` that are built in."""
    return list(dict.fromkeys(name.partition(".")[0] for name in CONSTRAINTS))


def constraint_class(config: DictConfig) -> type[Constraint]:
    """The class that `constraint.kind` and `constraint.inject` name; raises ConfigError."""
    kind, inject = str(config.constraint.kind), str(config.constraint.inject)
    if ":" in kind:
        return load_constraint(kind)
    if kind not in kinds():
        near = difflib.get_close_matches(kind, kinds(), n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        options = ", ".join(kinds())
        raise ConfigError(
            f"constraint.kind={kind!r} is refused. Fix: {meant}set it to one of {options}, or to "
            "package.module:Class or path/to/file.py:Class for one of your own"
        )
    # An unknown injection is reported with the other values of our sections.
    by_default = CONSTRAINTS.get(kind, CONSTRAINTS.get(f"{kind}.{Inject.SFT}", Unconstrained))
    return CONSTRAINTS.get(f"{kind}.{inject}", by_default)


def own_sections(chosen: type[Constraint]) -> dict[str, type[Section]]:
    """The types of all keys under `constraint` that belong to one constraint alone."""
    classes = [*CONSTRAINTS.values(), chosen]
    return {one.name: one.section for one in classes if one.section is not None}


def load_constraint(reference: str) -> type[Constraint]:
    """The class of `package.module:Class` or `path/to/file.py:Class`; raises ConfigError."""
    origin, _, name = reference.rpartition(":")
    try:
        found = getattr(_module(origin), name)
    except Exception as error:  # a user's code may raise anything, or not compile
        raise ConfigError(
            f"constraint.kind={reference!r}: it could not be loaded ({error}). Fix: name a class "
            "of a module that every node can import, or of a file that every node has"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Constraint)):
        raise ConfigError(
            f"constraint.kind={reference!r}: {name} is no subclass of {Constraint.__module__}."
            f"{Constraint.__name__}. Fix: derive it from that class"
        )
    return found


def _module(origin: str) -> ModuleType:
    if not origin.endswith(".py"):
        return importlib.import_module(origin)
    path = Path(origin).expanduser().absolute()
    # One module a file and process: its classes are compared by identity.
    name = f"constraint_of_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a dataclass looks for its own annotations
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module

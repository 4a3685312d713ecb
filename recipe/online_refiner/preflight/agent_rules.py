"""Rules on agent loops: the file that names a user's own, and the class that runs them."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterator
from typing import Any

import yaml

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.registry_rules import (
    AGENT_LOOPS,
    ROLLOUT,
    is_module,
    may_register,
    unknown_name,
)

OUR_MANAGER = "recipe.online_refiner.agent_loop.RefiningManager"
_FILE = f"{ROLLOUT}.agent.agent_loop_config_path"
_MANAGER = f"{ROLLOUT}.agent.agent_loop_manager_class"


def check_agent_loops(plan: RunPlan) -> Iterator[str]:
    """Own agent loops are in a list with their names and classes, and the default is known."""
    agent = plan.config.actor_rollout_ref.rollout.agent
    file = agent.get("agent_loop_config_path")
    if file is None:
        return
    if not os.path.isfile(str(file)):
        yield f"{_FILE}={file!r}: no such file. Fix: {_FILE}=null, or an absolute path"
        return
    loops = _loops_of(str(file))
    if isinstance(loops, str):
        yield f"{_FILE}={file!r}: {loops}. Fix: a list of loops in it, each with name and _target_"
        return
    for name, target in loops.items():
        if not is_module(target.rpartition(".")[0]):
            yield (
                f"{_FILE}={file!r}: there is no module of {name}'s _target_ {target!r}. Fix: "
                "package.module.Class of a package that every node can import"
            )
    if not may_register(plan):
        key, known = f"{ROLLOUT}.agent.default_agent_loop", (*AGENT_LOOPS, *loops)
        yield from unknown_name(key, agent.default_agent_loop, known)


def _loops_of(file: str) -> dict[str, str] | str:
    """The classes of the file's loops by their names; a text says why there are none."""
    try:
        with open(file, encoding="utf-8") as text:
            found: Any = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"it is no YAML ({str(error).splitlines()[0]})"
    if not isinstance(found, list) or not found:
        return "it holds no list"
    for one in found:
        if not (isinstance(one, dict) and one.get("name") and one.get("_target_")):
            return f"{one!r} lacks name or _target_"
    return {str(one["name"]): str(one["_target_"]) for one in found}


def check_agent_manager(plan: RunPlan) -> Iterator[str]:
    """The class that has rollouts made is there; where they are refined it is ours or below it."""
    manager = str(plan.config.actor_rollout_ref.rollout.agent.agent_loop_manager_class)
    if manager == OUR_MANAGER:
        return
    fix = f"Fix: {_MANAGER}={OUR_MANAGER}, or a class below it"
    module, _, name = manager.rpartition(".")
    if not is_module(module):
        yield f"{_MANAGER}={manager!r}: there is no module {module!r}. {fix}"
        return
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a user's code may raise anything
        yield f"{_MANAGER}={manager!r}: {module} could not be loaded ({error!r}). {fix}"
        return
    found = getattr(loaded, name, None)
    if not isinstance(found, type):
        near = difflib.get_close_matches(name, dir(loaded), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        yield f"{_MANAGER}={manager!r}: {module} has no class {name}{meant}. {fix}"
    elif plan.refines and OUR_MANAGER not in _bases(found):
        yield f"{_MANAGER}={manager!r}: it would refine nothing. {fix}"


def _bases(found: type) -> set[str]:
    """The names of a class and of those that it is derived from."""
    return {f"{one.__module__}.{one.__qualname__}" for one in found.__mro__}

"""The committed experiments by name, and the machine that each is meant for first."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

CONFIG = Path(str(resources.files("recipe.online_refiner") / "config"))
"""The folder that Hydra composes from."""


def experiment_names() -> list[str]:
    """The values of `experiment=`, sorted; files that only others build on are not among them."""
    return sorted(path.stem for path in (CONFIG / "experiment").glob("*.yaml"))


def hardware_of(experiment: str) -> str:
    """The value of `hardware=` for an experiment: the paper's machine where it had one."""
    if "quickstart" in experiment:
        return "cpu_debug"
    if "dialogue" in experiment:
        return "gpu4x48_reward_model"
    if "large" in experiment:
        return "nodes8x80_32b" if "32b" in experiment else "nodes8x80"
    return "gpu4x48"

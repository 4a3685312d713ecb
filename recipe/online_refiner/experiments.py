"""The committed experiments by name, and the machine that each is meant for first."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import yaml

CONFIG = Path(str(resources.files("recipe.online_refiner") / "config"))
"""The folder that Hydra composes from."""


def experiment_names() -> list[str]:
    """The values of `experiment=`, sorted; files that only others build on are not among them."""
    return sorted(path.stem for path in (CONFIG / "experiment").glob("*.yaml"))


def hardware_of(experiment: str) -> str:
    """The hardware group that an experiment names (`run.hardware`), for the paper's its machine."""
    folder = CONFIG / "experiment"
    found = _hardware_in(folder / f"{experiment}.yaml")
    if found is None:
        raise ValueError(f"experiment={experiment}: it names no machine. Fix: set run.hardware")
    return found


def _hardware_in(file: Path) -> str | None:
    """`run.hardware` of the file, or of the last of the files that it builds on."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    own = (content.get("run") or {}).get("hardware")
    if own is not None:
        return str(own)
    below = [name for name in content.get("defaults", []) if isinstance(name, str)]
    found = (_hardware_in(file.parent / f"{name}.yaml") for name in reversed(below)
             if name != "_self_")  # fmt: skip
    return next((one for one in found if one is not None), None)

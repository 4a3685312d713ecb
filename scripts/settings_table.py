"""Write docs/settings.md: every experiment's resolved settings, and where each comes from.

    python scripts/settings_table.py

Composes the experiments on their own hardware; docs/provenance.yaml says what the paper states and
what is inferred.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

REPO_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO_ROOT))

from recipe.online_refiner.experiments import CONFIG, experiment_names, hardware_of  # noqa: E402
from recipe.online_refiner.method.groups import filters_groups  # noqa: E402
from recipe.online_refiner.method.registry import constraint_class, own_sections  # noqa: E402
from recipe.online_refiner.settings import read_settings  # noqa: E402

PROVENANCE = REPO_ROOT / "docs" / "provenance.yaml"
TABLE = REPO_ROOT / "docs" / "settings.md"
MARKS = {"paper": "**{}**", "inferred": "*{}*", "ours": "{}"}
FAMILIES = {
    "PPO, dialogue": "ppo_dialogue",
    "PPO, APPS": "ppo_apps",
    "DAPO, APPS": "dapo",
    "DAPO, mathematics": "math",
    "Large": "large",
}
"""The table of each family, and how the names of its experiments begin; `dapo` takes the rest."""
MATH = "dapo_math"
"""In the names of the family `math`."""
NOTES = {
    "math": "Here **bold** is DAPO's own paper (arXiv 2503.14476) and *italic* its public scripts "
    "for verl.\n\n"
}
OF_A_KIND = {
    "constraint.inject": "dynamic",
    "constraint.reduce": "dynamic",
    "constraint.schedule": "dynamic",
    "constraint.conditioning": "dynamic",
    "constraint.filter": "dynamic",
    "constraint.tokens": "dynamic",
    "constraint.lambda": "dynamic",
    "constraint.static_kl": "static_kl",
    "constraint.chord": "chord",
    "constraint.keep_refined_groups": "dynamic",
}
"""Keys that mean something for one kind of constraint only."""
HEAD = """# Settings of the experiments

Every experiment on the hardware that it names, as it is resolved. **Bold**: the paper says so.
*Italic*: inferred; the reasons are in [paper.md](paper.md). Plain: ours. A dash: the key has no
effect there. Written by `python scripts/settings_table.py`.
"""


def composed() -> dict[str, DictConfig]:
    """The configuration of every experiment for a cluster."""
    with initialize_config_dir(str(CONFIG), version_base=None):
        return {
            name: compose("online_refiner", [f"experiment={name}", f"hardware={hardware_of(name)}"])
            for name in experiment_names()
            if not name.startswith("quickstart")
        }


def document(configs: Mapping[str, DictConfig]) -> str:
    """The page, given the experiments' configurations."""
    provenance = yaml.safe_load(PROVENANCE.read_text(encoding="utf-8"))
    parts = [HEAD]
    for title, family in FAMILIES.items():
        names = [name for name in configs if family_of(name) == family]
        shown = {
            key: origin or {}
            for key, origin in provenance.items()
            if family in (origin or {}).get("only", [family])
        }
        note = NOTES.get(family, "")
        parts.append(f"## {title}\n\n{note}{_table(names, configs, shown)}\n")
    return "\n".join(parts)


def family_of(name: str) -> str:
    """The family of an experiment."""
    if MATH in name:
        return "math"
    found = [family for family in FAMILIES.values() if name.startswith(family)]
    return found[0] if found else "dapo"


def cell(name: str, key: str, config: DictConfig, origin: Mapping[str, Mapping[str, Any]]) -> str:
    """A value in the form that says where it comes from."""
    value = _resolved(key, config)
    if value is None or not _has_effect(key, config):
        return "–"
    value = list(value) if OmegaConf.is_list(value) else value
    family = family_of(name)
    for source in ("paper", "inferred"):
        given = [v for prefix, v in (origin.get(source) or {}).items() if family.startswith(prefix)]
        if value in given or any(isinstance(one, list) and value in one for one in given):
            return MARKS[source].format(_short(value))
    return MARKS["ours"].format(_short(value))


def _resolved(key: str, config: DictConfig) -> Any:
    """The value with which a run starts: of the constraint null is a default of its injection."""
    section, _, name = key.partition(".")
    if section != "constraint":
        return OmegaConf.select(config, key)
    settings = read_settings(config, own_sections(constraint_class(config)))
    return OmegaConf.select(OmegaConf.create(settings.constraint.dump()), name)


def _has_effect(key: str, config: DictConfig) -> bool:
    section = config.constraint
    if key == "constraint.accumulate":
        return bool(section.kind == "dynamic" and section.inject == "advantage")
    if key == "constraint.keep_refined_groups" and not filters_groups(config):
        return False
    for prefix, kind in OF_A_KIND.items():
        if key.startswith(prefix):
            return bool(section.kind == kind)
    warm_up = "actor_rollout_ref.actor.optim.lr_warmup_steps"
    if key == f"{warm_up}_ratio":
        return bool((OmegaConf.select(config, warm_up) or 0) <= 0)
    if key.startswith("refiner."):
        return bool(section.kind == "dynamic" or config.refiner.observe)
    if key.startswith("reward.reward_kwargs."):
        return bool(config.reward.reward_manager.name == "dapo")
    if key.startswith("critic."):
        return bool(config.algorithm.adv_estimator == "gae")
    if key.startswith("reward.reward_model."):
        return bool(config.reward.reward_model.enable)
    return True


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(
    names: Sequence[str], configs: Mapping[str, DictConfig], origins: Mapping[str, Any]
) -> str:
    rows = [("key", *(f"`{name}`" for name in names)), ("---",) * (len(names) + 1)]
    for key, origin in origins.items():
        cells = [cell(name, key, configs[name], origin) for name in names]
        if set(cells) != {"–"}:
            rows.append((f"`{key}`", *cells))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    TABLE.write_text(document(composed()), encoding="utf-8")
    print(f"wrote {TABLE}")

"""The types of verl's keys: complete for what is shipped, and refusing what is out of range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.resolve.key_faults import OWN_SECTIONS, key_faults
from recipe.online_refiner.resolve.verl_keys import KINDS

Compose = Callable[..., DictConfig]
GROUPS = ("algorithm", "engine", "experiment", "hardware", "strategy")
FREE = (*(f"{name}." for name in OWN_SECTIONS), "reward.custom_reward_function.reward_kwargs.")
"""Ours are typed in `settings.py`; a reward function's settings are its own."""


def leaves(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, f"{name}.{key}" if name else str(key))
    else:
        yield name


def test_every_key_of_the_groups_has_a_type() -> None:
    files = [path for group in GROUPS for path in sorted((CONFIG / group).rglob("*.yaml"))]
    keys = {key for path in files for key in leaves(yaml.safe_load(path.read_text()) or {})}
    inside_typed = tuple(f"{key}." for key in KINDS)
    untyped = {key for key in keys - {"defaults"} if key not in KINDS}
    assert {key for key in untyped if not key.startswith((*FREE, *inside_typed))} == set()


@pytest.mark.parametrize(
    "groups",
    [
        ("hardware=gpu8x80_reward_model", "experiment=ppo_dialogue_dynamic"),
        ("hardware=nodes8x80_32b", "experiment=large_dapo_32b"),
        ("hardware=cpu_debug", "experiment=quickstart_stress"),
        ("hardware=gpu4x48", "engine=sglang", "experiment=chord_phi_apps"),
    ],
)
def test_the_types_fit_what_is_shipped(groups: tuple[str, ...]) -> None:
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose("online_refiner", list(groups))
    assert list(key_faults(config)) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("trainer.nnodes=true", "trainer.nnodes=True is refused. Fix: set it to a valid integer"),
        ("data.train_batch_size='8'", "data.train_batch_size='8' is refused."),
        ("critic=none", "critic='none': it is a section of keys. Fix: set the keys below it"),
        ("trainer.logger=5", "trainer.logger=5 is refused. Fix: set it to a name, or a list of"),
        ("trainer.nnodes=${no.such.key}", "trainer.nnodes: Interpolation key 'no.such.key' not"),
    ],
)
def test_a_wrong_value_is_named_with_its_fix(composed: Compose, change: str, sentence: str) -> None:
    (fault,) = key_faults(composed(change))
    assert fault.startswith(sentence)
    assert "Fix: " in fault

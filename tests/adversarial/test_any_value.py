"""Whatever value a key has, there is a sentence in place of a traceback.

Every key of ours and of the configuration groups is set to null, numbers at the edge, and values of
wrong types; every section above them is replaced.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.preflight.rules import faults_of, warnings_on
from recipe.online_refiner.resolve.key_faults import OWN_SECTIONS
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError

VALUES: tuple[Any, ...] = (None, 0, -1, "no-such-value", [])
GROUPS = ("algorithm", "engine", "experiment", "hardware", "strategy")
FREE = ("defaults", "hydra")
"""Read by Hydra alone."""
ROW = {
    "data_source": "micro_apps",
    "prompt": [{"role": "user", "content": "Print the sum."}],
    "reward_model": {"style": "rule", "ground_truth": '{"inputs": ["1 2"], "outputs": ["3"]}'},
    "extra_info": {"index": 0, "conversation": '[{"role": "user", "content": "Hello."}]'},
}


def leaves(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, f"{name}.{key}" if name else str(key))
    else:
        yield name


def keys_of_the_groups() -> list[str]:
    """Keys of the groups' files, and the keys that are ours."""
    files = [path for group in GROUPS for path in sorted((CONFIG / group).rglob("*.yaml"))]
    found = {key for path in files for key in leaves(yaml.safe_load(path.read_text()) or {})}
    own = yaml.safe_load((CONFIG / "online_refiner.yaml").read_text())
    found |= {key for section in OWN_SECTIONS for key in leaves(own[section], section)}
    return sorted(key for key in found if key.partition(".")[0] not in FREE)


def sections_of(keys: list[str]) -> list[str]:
    """Everything that has keys below it."""
    parts = [key.split(".") for key in keys]
    return sorted({".".join(part[:n]) for part in parts for n in range(1, len(part))})


KEYS = keys_of_the_groups()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no folder is not looked for on a hub, which would be asked again and again."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, DictConfig]]:
    """A configuration under each strategy, with GPUs, a critic, a reward model and DAPO's keys."""
    groups = {
        "fsdp2": ("hardware=gpu8x80_reward_model", "experiment=ppo_dialogue_dynamic"),
        "megatron": ("hardware=nodes8x80", "experiment=large_dapo_7b"),
        "cpu": ("hardware=cpu_debug", "experiment=quickstart_stress"),
    }
    rows = str(tmp_path_factory.mktemp("data") / "rows.parquet")
    pq.write_table(pa.Table.from_pylist([ROW] * 600), rows)
    made = {}
    with initialize_config_dir(str(CONFIG), version_base=None):
        for name, overrides in groups.items():
            config = compose("online_refiner", list(overrides))
            config.data.train_files = config.data.val_files = rows
            config.actor_rollout_ref.model.path = str(ensure_checkpoint())
            config.critic.model.path = str(ensure_checkpoint())
            if config.reward.reward_model.enable:
                config.reward.reward_model.model_path = str(ensure_checkpoint())
            made[name] = config
    yield made


def try_value(config: DictConfig, key: str, value: Any) -> list[str]:
    """The sentences on the config with this value; anything but a sentence is raised."""
    OmegaConf.update(config, key, value, force_add=True, merge=False)
    try:
        plan = resolve(config)
    except ConfigError as error:
        return str(error).splitlines()
    return [*faults_of(plan), *warnings_on(plan)]


def base_with(bases: dict[str, DictConfig], key: str) -> DictConfig:
    """The first configuration that has the key."""
    section, _, last = key.rpartition(".")
    for base in bases.values():
        holder = OmegaConf.select(base, section) if section else base
        if isinstance(holder, DictConfig) and last in holder:
            return base
    raise AssertionError(f"no configuration here has {key}")


@pytest.mark.parametrize("key", KEYS)
def test_no_value_of_a_key_ends_in_a_traceback(bases: dict[str, DictConfig], key: str) -> None:
    config = copy.deepcopy(base_with(bases, key))
    for value in VALUES:
        for sentence in try_value(config, key, value):
            assert sentence.strip()


@pytest.mark.parametrize("section", sections_of(KEYS))
def test_nothing_in_place_of_a_section_does(bases: dict[str, DictConfig], section: str) -> None:
    config = copy.deepcopy(base_with(bases, section))
    for value in (None, "no-such-value"):
        for sentence in try_value(config, section, value):
            assert sentence.strip()


def test_there_are_many_keys() -> None:
    assert len(KEYS) > 200

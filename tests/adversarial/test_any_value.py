"""Whatever value a key has, there is a sentence in place of a traceback.

Every key of ours and of the configuration groups is set to null, numbers at the edge, and values of
wrong types; every section above them is replaced. Each key meets all values in one configuration
and two in another, and a sample goes through both commands themselves.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from config_copies import Original
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner import main as training
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.preflight import __main__ as preflight_command
from recipe.online_refiner.preflight.report import preflight
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


@dataclass(frozen=True)
class Base:
    """A configuration that runs on a machine that is large enough.

    Attributes:
        arguments: that compose it. config: what they compose to, handed out in copies.
        looked_at: the same, which nobody changes.
    """

    arguments: tuple[str, ...]
    config: Original
    looked_at: DictConfig

    def has(self, key: str) -> bool:
        section, _, last = key.rpartition(".")
        holder = OmegaConf.select(self.looked_at, section) if section else self.looked_at
        return isinstance(holder, DictConfig) and last in holder


GROUPS_OF_BASES = {
    "fsdp2": ("hardware=gpu8x80_reward_model", "experiment=ppo_dialogue_dynamic"),
    "megatron": ("hardware=nodes8x80", "experiment=large_dapo_7b"),
    "cpu": ("hardware=cpu_debug", "experiment=quickstart_stress"),
    # Mathematics, refined in blocks.
    "long": ("hardware=gpu8x80_long", "experiment=dynamic_dapo_math_7b"),
    "long_megatron": ("hardware=nodes2x8x80_long", "experiment=dynamic_dapo_math_32b_sft",
                      "strategy=megatron_long"),
}  # fmt: skip
"""With GPUs, a critic, a reward model, DAPO's keys and long responses, under each strategy."""
PROMPTS = 64
"""Of a batch and of the data, whose prompts are measured for each value."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, parsed_once: None) -> dict[str, Base]:
    """A configuration of each."""
    folder = tmp_path_factory.mktemp("data")
    sum_of_two = ROW | {"reward_model": {"style": "rule", "ground_truth": "2"}}
    rows = {"code": ROW, "math": sum_of_two}
    for name, row in rows.items():
        pq.write_table(pa.Table.from_pylist([row] * PROMPTS), folder / f"{name}.parquet")
    made = {}
    with initialize_config_dir(str(CONFIG), version_base=None):
        for name, groups in GROUPS_OF_BASES.items():
            data = folder / ("math.parquet" if name.startswith("long") else "code.parquet")
            models = ["actor_rollout_ref.model.path", "critic.model.path"]
            models += ["reward.reward_model.model_path"] if name == "fsdp2" else []
            arguments = (
                *groups,
                *(f"data.{key}={data}" for key in ("train_files", "val_files")),
                *(f"{key}={ensure_checkpoint()}" for key in models),
                f"data.train_batch_size={PROMPTS}",
            )
            config = compose("online_refiner", list(arguments))
            made[name] = Base(arguments, Original(config), config)
    return made


def try_value(config: DictConfig, key: str, value: Any) -> list[str]:
    """The sentences on the config with this value; anything but a sentence is raised."""
    OmegaConf.update(config, key, value, force_add=True, merge=False)
    try:
        report = preflight(resolve(config))
    except ConfigError as error:
        return str(error).splitlines()
    assert report.text()
    return [*report.faults, *report.warnings]


def bases_with(bases: dict[str, Base], key: str) -> list[Base]:
    """The configurations that have the key."""
    found = [base for base in bases.values() if base.has(key)]
    assert found, f"no configuration here has {key}"
    return found


@pytest.mark.parametrize("key", KEYS)
def test_no_value_of_a_key_ends_in_a_traceback(bases: dict[str, Base], key: str) -> None:
    first, *others = bases_with(bases, key)
    chance = random.Random(key)
    tried = [(first, value) for value in VALUES]
    if others:
        other = chance.choice(others)
        tried += [(other, value) for value in chance.sample(VALUES, 2)]
    for base, value in tried:
        for sentence in try_value(base.config.copy(), key, value):
            assert sentence.strip()


@pytest.mark.parametrize("section", sections_of(KEYS))
def test_nothing_in_place_of_a_section_does(bases: dict[str, Base], section: str) -> None:
    base = random.Random(section).choice(bases_with(bases, section))
    for value in (None, "no-such-value"):
        for sentence in try_value(base.config.copy(), section, value):
            assert sentence.strip()


SAMPLE = random.Random(16).sample([(key, value) for key in KEYS for value in VALUES], 40)
COMMANDS = {"training": training, "preflight": preflight_command}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("key", "value"), SAMPLE)
def test_the_commands_end_in_sentences_too(
    bases: dict[str, Base],
    command: str,
    key: str,
    value: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All but the training itself, and what replaces the process on a CPU, are as they are."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr("verl.trainer.main_ppo.run_ppo", lambda *_, **__: None)
    base = random.Random(key).choice(bases_with(bases, key))
    typed = {None: "null"}.get(value, value) if not isinstance(value, list) else "[]"
    own = [f"run.dir={tmp_path}", "run.launcher=null"]
    arguments = [one for one in own if not one.startswith(f"{key}=")]
    monkeypatch.setattr("sys.argv", ["command", *base.arguments, *arguments, f"++{key}={typed}"])
    try:
        COMMANDS[command].main()
    except SystemExit as ended:
        assert ended.code == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert printed.out or "The configuration cannot run:\n- " in printed.err


def test_there_are_many_keys() -> None:
    assert len(KEYS) > 200

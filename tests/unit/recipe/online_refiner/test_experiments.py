"""Every committed experiment composes, means what the paper's table says, and passes the preflight.

The models are folders with the real models' sizes and the tiny model's tokenizer.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose, initialize_config_dir
from model_folders import SIZES, model_folder, sizes_of
from omegaconf import DictConfig, OmegaConf

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG, experiment_names, hardware_of
from recipe.online_refiner.preflight.report import preflight
from recipe.online_refiner.resolve.resolving import resolve

REPO_ROOT = Path(__file__).resolve().parents[4]
EXPERIMENTS = experiment_names()
OF_THE_CLUSTER = [name for name in EXPERIMENTS if not name.startswith("quickstart")]
# May be filled freely: they are open dictionaries in verl or in ours, or the preflight's own.
OPEN = (
    "reward.reward_kwargs",
    "reward.custom_reward_function.reward_kwargs",
    "refiner.rollout.",
    "machine",
)

MATH_ROWS = "math"
"""The name of the file whose answers are numbers."""

Composed = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def composed() -> Iterator[Composed]:
    """Composes with overrides, each combination once; what it returns is shared."""
    made: dict[tuple[str, ...], DictConfig] = {}

    def make(*overrides: str) -> DictConfig:
        if overrides not in made:
            made[overrides] = compose("online_refiner", list(overrides))
        return made[overrides]

    with initialize_config_dir(str(CONFIG), version_base=None):
        yield make


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder for each model, by its name: its sizes, without weights."""
    root = tmp_path_factory.mktemp("models")
    return {name: str(model_folder(root / name, **sizes_of(name))) for name in SIZES}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    row = {
        "data_source": "apps",
        "prompt": [{"role": "user", "content": "Print the sum."}],
        "reward_model": {"style": "rule", "ground_truth": '{"inputs": ["1 2"], "outputs": ["3"]}'},
        "extra_info": {
            "index": 0,
            "reference_solution": "print(1)",
            "conversation": '[{"role": "user", "content": "Print the sum."}]',
        },
    }
    pq.write_table(pa.Table.from_pylist([row] * 600), path)
    solved = row | {"reward_model": {"style": "rule", "ground_truth": "3"}}
    pq.write_table(pa.Table.from_pylist([solved] * 600), path.with_stem(MATH_ROWS))
    return str(path)


def at_home(config: DictConfig, models: dict[str, str], rows: str) -> DictConfig:
    """A copy of the config with data, models and disk of this machine."""
    config = copy.deepcopy(config)
    if str(config.reward.custom_reward_function.path).endswith("math_dapo"):
        rows = str(Path(rows).with_stem(MATH_ROWS))
    config.data.train_files = config.data.val_files = rows
    policy = config.actor_rollout_ref.model
    policy.path = models.get(policy.path, str(ensure_checkpoint()))
    if config.reward.reward_model.enable:
        config.reward.reward_model.model_path = models[config.reward.reward_model.model_path]
    config.trainer.save_freq = -1
    return config


@functools.cache
def all_keys(composed: Composed, model_engine: str) -> set[str]:
    """What there is without an experiment."""
    return leaves(composed(f"model_engine={model_engine}"))


def leaves(config: DictConfig) -> set[str]:
    """Dotted names of all values."""

    def walk(value: Any, name: str) -> Iterator[str]:
        if isinstance(value, dict) and value:
            for key, below in value.items():
                yield from walk(below, f"{name}.{key}" if name else str(key))
        else:
            yield name

    return set(walk(OmegaConf.to_container(config, resolve=False), ""))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_passes_the_preflight(
    experiment: str, composed: Composed, models: dict[str, str], rows: str
) -> None:
    config = composed(f"experiment={experiment}", f"hardware={hardware_of(experiment)}")
    config = at_home(config, models, rows)
    report = preflight(resolve(config))
    assert report.faults == ()
    assert "actor" in report.text()


@pytest.mark.parametrize("experiment", OF_THE_CLUSTER)
def test_an_experiment_sets_only_keys_that_exist(experiment: str, composed: Composed) -> None:
    """Hydra lets a config file add keys, so a misspelt one would be ignored in silence."""
    config = composed(f"experiment={experiment}", f"hardware={hardware_of(experiment)}")
    is_megatron = config.actor_rollout_ref.actor.strategy == "megatron"
    known = all_keys(composed, "megatron" if is_megatron else "dp")
    added = leaves(config) - known
    emptied = {name for name in added if any(name.startswith(key) for key in OPEN)}
    assert added - emptied == set()


def test_each_experiment_writes_to_a_folder_of_its_own(composed: Composed) -> None:
    folders = [
        composed(f"experiment={name}", f"hardware={hardware_of(name)}").run.dir
        for name in OF_THE_CLUSTER
    ]
    assert len(set(folders)) == len(folders)


PAPER = yaml.safe_load((REPO_ROOT / "docs" / "provenance.yaml").read_text())
OF_THE_PAPER = [name for name in OF_THE_CLUSTER if not name.startswith("large")]
"""Or of DAPO's own paper."""
OF_OUR_SIZE = ("dapo_math_7b", "dynamic_dapo_math_7b", "dynamic_dapo_math_7b_sft")
"""Of another model than the paper's."""


def settings_table() -> Any:
    """The script that writes docs/settings.md."""
    path = REPO_ROOT / "scripts" / "settings_table.py"
    spec = importlib.util.spec_from_file_location("settings_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_the_cluster(composed: Composed) -> dict[str, DictConfig]:
    return {
        name: composed(f"experiment={name}", f"hardware={hardware_of(name)}")
        for name in OF_THE_CLUSTER
    }


def test_the_table_of_settings_is_that_of_the_experiments(composed: Composed) -> None:
    written = (REPO_ROOT / "docs" / "settings.md").read_text()
    assert written == settings_table().document(of_the_cluster(composed)), (
        "run scripts/settings_table.py"
    )


def test_no_key_has_two_origins() -> None:
    """Of a key that stands twice YAML takes the last, and the first says nothing any more."""
    text = (REPO_ROOT / "docs" / "provenance.yaml").read_text()
    keys = re.findall(r"^([\w.]+):", text, re.MULTILINE)
    assert len(keys) > 40
    assert [key for key in set(keys) if keys.count(key) > 1] == []


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        # Without dynamic sampling no group is kept or dropped.
        ("ppo_apps_dynamic", "constraint.keep_refined_groups", "–"),
        ("ppo_dialogue_dynamic_sft", "constraint.keep_refined_groups", "–"),
        ("dynamic_dapo_apps", "constraint.keep_refined_groups", "*False*"),
        ("large_dapo_7b", "constraint.keep_refined_groups", "True"),
        ("dapo_apps", "constraint.keep_refined_groups", "–"),
        ("dynamic_dapo_apps", "constraint.accumulate", "*return_to_go*"),
        ("ppo_apps_dynamic", "constraint.accumulate", "–"),
        # null in the configuration: the default of the injection.
        ("large_dapo_7b", "constraint.lambda", "0.0001"),
        ("ppo_apps_dynamic", "constraint.lambda", "*0.0001*"),
        ("ppo_apps_dynamic", "constraint.reduce", "sum"),
        ("ppo_apps_dynamic", "constraint.kind", "**dynamic**"),
        ("ppo_apps_none", "refiner.template", "–"),
        ("ppo_apps_none", "reward.reward_kwargs.overlong_buffer_cfg.enable", "–"),
    ],
)
def test_a_cell_says_where_its_value_comes_from_or_that_it_has_no_effect(
    name: str, key: str, expected: str, composed: Composed
) -> None:
    config = composed(f"experiment={name}", f"hardware={hardware_of(name)}")
    assert settings_table().cell(name, key, config, PAPER[key]) == expected


@pytest.mark.parametrize("key", [key for key in PAPER if not key.startswith("constraint.")])
def test_an_experiment_has_the_papers_settings(key: str, composed: Composed) -> None:
    """All but the constraint's, which set the arms apart."""
    table = settings_table()
    origin = PAPER[key] or {}
    for name in OF_THE_PAPER:
        if name in OF_OUR_SIZE and key.endswith("model.path"):
            continue
        config = composed(f"experiment={name}", f"hardware={hardware_of(name)}")
        stated = [
            value
            for source in ("paper", "inferred")
            for family, value in (origin.get(source) or {}).items()
            if table.family_of(name).startswith(family)
        ]
        several = [one for value in stated if isinstance(value, list) for one in value]
        if stated:
            assert OmegaConf.select(config, key) in stated + several, f"{name}: {key}"


def test_the_arms_of_an_experiment_differ_in_the_constraint_alone(composed: Composed) -> None:
    arms: dict[str, set[str]] = {}
    for name in OF_THE_PAPER:
        config = copy.deepcopy(composed(f"experiment={name}", f"hardware={hardware_of(name)}"))
        setting = str(config.run.setting)
        groups = bool(config.constraint.keep_refined_groups)
        del config.constraint, config.run
        rest = OmegaConf.to_yaml(config, resolve=False)
        if setting not in ("filter_ablation", "lambda_sweep"):
            arms.setdefault(setting, set()).add(f"{groups}\n{rest}")
    assert {setting: len(rests) for setting, rests in arms.items()} == {
        "ppo_dialogue": 1,
        "ppo_apps": 1,
        "dapo_apps": 1,
        "dapo_math_7b": 1,
        "dapo_math_32b": 1,
    }


@pytest.mark.parametrize(
    ("overrides", "strategy", "engine"),
    [
        (["hardware=gpu1x80", "experiment=ppo_apps_none"], "fsdp2", "vllm"),
        (["hardware=gpu8x80", "engine=sglang", "experiment=dapo_apps"], "fsdp2", "sglang"),
        (["hardware=gpu8x80_reward_model", "experiment=ppo_dialogue_none"], "fsdp2", "vllm"),
        (["hardware=nodes8x80", "strategy=fsdp2", "experiment=large_dapo_7b"], "fsdp2", "vllm"),
        (["hardware=cpu_debug", "experiment=large_dapo_32b"], "fsdp2", "vllm"),
        (["hardware=cpu_debug", "experiment=ppo_dialogue_dynamic"], "fsdp2", "vllm"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_hardware_engine_and_strategy_are_chosen_apart_from_the_experiment(
    overrides: list[str], strategy: str, engine: str, composed: Composed
) -> None:
    config = composed(*overrides)
    actor = config.actor_rollout_ref
    assert (actor.actor.strategy, config.critic.strategy, actor.rollout.name) == (
        strategy,
        strategy,
        engine,
    )
    assert config.trainer.device == ("cpu" if "hardware=cpu_debug" in overrides else "cuda")

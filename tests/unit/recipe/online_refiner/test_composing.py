"""Arguments that compose no configuration: a sentence each, through both commands themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

from recipe.online_refiner import main as training
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.preflight import __main__ as preflight
from recipe.online_refiner.resolve.composing import FULL_ERROR, choices_of, composed

Command = Callable[..., str]
GROUPS = ("algorithm", "engine", "experiment", "hardware", "strategy")
CHOSEN = ("hardware=gpu8x80", "experiment=dapo_apps")
NO_NAMES = ("null", "0", "-1", "", "''", "1.5", "true", "[]", "{a: 1}")


@pytest.fixture(params=[training, preflight], ids=["training", "preflight"])
def refusal(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """What a command prints that refuses its arguments."""
    monkeypatch.delenv(FULL_ERROR, raising=False)

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["command", *arguments])
        with pytest.raises(SystemExit) as ended:
            request.param.main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return run


def test_the_groups_are_those_that_are_shipped() -> None:
    assert {path.name for path in CONFIG.iterdir() if path.is_dir()} == set(GROUPS)


@pytest.mark.parametrize("value", NO_NAMES)
@pytest.mark.parametrize("group", GROUPS)
def test_what_names_no_file_is_refused_with_the_choices(
    refusal: Command, group: str, value: str
) -> None:
    others = [one for one in CHOSEN if not one.startswith(group)]
    found = refusal(*others, f"{group}={value}")
    assert f"- {group}=" in found
    assert all(name in found for name in choices_of(group))
    assert "Traceback" not in found


@pytest.mark.parametrize("group", GROUPS)
def test_a_list_of_files_is_refused(refusal: Command, group: str) -> None:
    first, second = choices_of(group)[:2]
    assert f"- {group}=[{first},{second}]: it takes the name of one" in refusal(
        f"{group}=[{first},{second}]"
    )
    assert "one command for each" in refusal(f"{group}={first},{second}")


@pytest.mark.parametrize("name", [name for group in GROUPS for name in choices_of(group)])
def test_a_misspelt_name_is_corrected(refusal: Command, name: str) -> None:
    group = next(group for group in GROUPS if name in choices_of(group))
    others = [one for one in CHOSEN if not one.startswith(group)]
    found = refusal(*others, f"{group}={name}x")
    assert f"- {group}={name}x: there is no such file. Fix: did you mean {name}? one of" in found


ARGUMENTS: list[tuple[tuple[str, ...], str]] = [
    # Files of verl's: what is no choice there is a section here.
    (("data=-1",), "data=-1: it is a section of keys. Fix: set the keys below it, such as data."),
    (("data=null",), "data=null: it is a section"),
    (("data=parquet",), "data=parquet: it is a section"),
    (("critic=[]",), "critic=[]: it is a section"),
    (("reward=0",), "reward=0: it is a section"),
    (("hydra=5",), "hydra=5: it is a section"),
    (("model_engine=0",), "model_engine=0: it takes the name of one file. Fix: one of dp, mega"),
    (("model_engine=dq",), "model_engine=dq: there is no such file. Fix: one of dp, megatron"),
    (("actor@actor_rollout_ref.actor=null",), "one of actor, dp_actor, megatron_actor"),
    (("actor@actor_rollout_ref.actor=megatrn",), "did you mean megatron_actor?"),
    # A name that is cut short: all that it begins, and not a name that is like it.
    (
        ("experiment=ppo_apps",),
        "did you mean ppo_apps_dynamic or ppo_apps_dynamic_sft or ppo_apps_"
        "none or ppo_apps_static? one of",
    ),
    (("hardware=gpu4",), "did you mean gpu4x48 or gpu4x48_reward_model? one of"),
    # Groups of which nothing is chosen here.
    (("strategy=fsdp2",), "nothing that is chosen here has a file of strategy"),
    (("hardware=cpu_debug", "experiment=quickstart_stress", "engine=vllm"), "+engine=vllm adds it"),
    (("+engine=vlm",), "+engine=vlm: there is no such file. Fix: did you mean vllm?"),
    # Keys.
    (("constraint.lamda=1",), "did you mean constraint.lambda? If not, remove it"),
    (("constraint.kind.x=5",), "did you mean constraint.kind?"),
    # A key that verl reads and has no line for, which is not its own likeness.
    (
        ("actor_rollout_ref.model.override_config.attn_implementation=sdpa",),
        "the config has no such key yet. Fix: +actor_rollout_ref.model.override_config.attn_",
    ),
    (("monitor.nothing_like_it=5",), "monitor.nothing_like_it=5: there is no such key. Fix: remo"),
    (("actor_rollout_ref.actor.optim.lrr=1",), "did you mean actor_rollout_ref.actor.optim.lr?"),
    (("actor_rolout_ref.actor.optim.lr=1",), "did you mean actor_rollout_ref.actor.optim.lr?"),
    (("+constraint.kind=none",), "An item is already at 'constraint.kind'"),
    (("~nothing",), "'nothing' does not exist"),
    # What cannot be read.
    (("data.train_files=a,b",), "Fix: 'data.train_files=[a,b]' for a list, or one of them"),
    (("data.train_files=[a",), "data.train_files=[a: no viable alternative"),
    (("refiner.template=~/own.yaml",), "Fix: $HOME in place of ~"),
    (("dapo_apps",), "Error parsing override 'dapo_apps'. Fix: KEY=VALUE"),
    (("=5",), "=5: no key is before the sign"),
    (("--config-name", "nothing"), "Cannot find primary config 'nothing'"),
    (("--config-dir", "/nowhere"), "'/nowhere' not found"),
    (("hydra.searchpath=0",), "hydra.searchpath must be a list"),
]


@pytest.mark.parametrize(("arguments", "words"), ARGUMENTS, ids=lambda value: str(value)[:60])
def test_other_arguments_are_refused(
    refusal: Command, arguments: tuple[str, ...], words: str
) -> None:
    found = refusal(*arguments)
    assert words in found
    assert "Fix: " in found
    assert "Traceback" not in found
    assert FULL_ERROR not in found


def test_files_in_a_folder_of_ones_own_are_chosen_and_corrected(
    refusal: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "my_experiment.yaml").write_text("# @package _global_\nrun: {seed: -1}\n")
    of_own = ("--config-dir", str(tmp_path), "experiment=my_experimen")
    assert "did you mean my_experiment?" in refusal(*of_own)


def test_a_run_that_fails_is_not_taken_for_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(FULL_ERROR, raising=False)
    monkeypatch.setattr("sys.argv", ["command"])

    @composed
    def fails(config: DictConfig) -> None:
        assert FULL_ERROR not in os.environ
        raise RuntimeError("a disk is full")

    with pytest.raises(SystemExit) as ended:
        fails()
    assert ended.value.code == 1
    assert "RuntimeError: a disk is full" in capsys.readouterr().err


def test_hydras_own_errors_are_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FULL_ERROR, "1")
    monkeypatch.setattr("sys.argv", ["command", "experiment=nothing"])
    with pytest.raises(hydra.errors.MissingConfigException):
        preflight.main()


def test_a_command_gets_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FULL_ERROR, raising=False)
    monkeypatch.setattr("sys.argv", ["command", *CHOSEN, "constraint.lambda=0.5"])
    seen: list[DictConfig] = []
    composed(seen.append)()
    assert seen[0].constraint["lambda"] == 0.5
    assert seen[0].run.setting == "dapo_apps"
    assert seen[0].trainer.n_gpus_per_node == 8

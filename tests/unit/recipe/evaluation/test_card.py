"""What a model card says and what it keeps to itself; which checkpoints are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from recipe.evaluation.card import is_hub_name, lookup, model_card
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.judging import Judged
from recipe.evaluation.publish import publish
from recipe.evaluation.results import score

RUN = {
    "arm": "dynamic_sft",
    "setting": "apps",
    "seed": 3,
    "kind": "dynamic",
    "lambda": 1e-4,
    "total_steps": 150,
    "commit": "abc123",
    "versions": {"verl": "0.9.1"},
    "started_at": "2026-01-01T00:00:00+00:00",
}
CONFIG = {
    "actor_rollout_ref": {
        "model": {"path": "Qwen/Qwen2.5-Coder-1.5B-Instruct"},
        "rollout": {"n": 8},
    },
    "constraint": {"inject": "sft", "lambda": None, "static_kl": {"coef": 0.01}},
    "data": {"train_files": ["/home/someone/secret/train.parquet"]},
}


def test_the_card_states_method_data_seed_scores_and_commit() -> None:
    verdict = Judged("a", 0, True, "accepted", 1, 1, 1.0)
    card = model_card(
        "tuned", 100, RUN, CONFIG, {"tuned": [score("humaneval", "chat", [verdict], (1,))]}
    )
    assert "base_model: Qwen/Qwen2.5-Coder-1.5B-Instruct\n" in card.split("---")[1]
    rows = {
        tuple(c.strip() for c in row.split("|")[1:-1]) for row in card.splitlines() if "|" in row
    }
    assert {("steps", "100 of 150"), ("seed", "3"), ("commit", "abc123")} <= rows
    assert {("λ at the first step", "0.0001"), ("`actor_rollout_ref.rollout.n`", "8")} <= rows
    assert ("`constraint.inject`", "sft") in rows
    assert ("finished", "not finished") in rows
    assert "verl 0.9.1" in card
    assert any(row[:3] == ("humaneval", "chat", "1") for row in rows)
    assert "the dynamic constraint of an online refiner" in card


@pytest.mark.parametrize(
    ("kind", "shown", "hidden"),
    [
        ("none", "no constraint", "`constraint."),
        ("static_kl", "| `constraint.static_kl.coef`", "`constraint.inject`"),
        ("dynamic", "| `constraint.inject`", "static_kl"),
    ],
)
def test_only_the_settings_that_the_kind_of_constraint_reads_are_shown(
    kind: str, shown: str, hidden: str
) -> None:
    card = model_card("tuned", 1, RUN | {"kind": kind}, CONFIG, {})
    assert shown in card
    assert hidden not in card.partition("## Settings")[2]


def test_paths_of_the_training_machine_stay_private() -> None:
    config = CONFIG | {"actor_rollout_ref": {"model": {"path": "/home/someone/models/base"}}}
    card = model_card("tuned", 1, RUN, config, {})
    assert "someone" not in card
    assert "base_model" not in card
    assert "`base`" in card and "train.parquet" in card


def test_a_card_of_nothing_says_so() -> None:
    card = model_card("tuned", 7, {}, {}, {})
    assert "The run's configuration was not found." in card
    assert "Not evaluated." in card


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Qwen/Qwen2.5", True), ("/a/b", False), ("./a", False), ("~/a", False), ("a", False)],
)
def test_hub_names_are_told_from_paths(name: str, expected: bool) -> None:
    assert is_hub_name(name) is expected


def test_a_dotted_key_is_looked_up_as_far_as_it_goes() -> None:
    assert lookup(CONFIG, "actor_rollout_ref.rollout.n") == 8
    assert lookup(CONFIG, "actor_rollout_ref.rollout.n.m") is None
    assert lookup(CONFIG, "critic.model") is None


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "checkpoints" / "global_step_4"
    (folder / "actor" / "huggingface").mkdir(parents=True)
    (folder / "actor" / "huggingface" / "config.json").write_text(json.dumps({}))
    return folder


def test_unusable_checkpoints_and_folders_are_named_with_the_fix(
    checkpoint: Path, tmp_path: Path
) -> None:
    def message(**given: Any) -> str:
        arguments: dict[str, Any] = {"checkpoint": checkpoint, "out": tmp_path / "new"}
        with pytest.raises(EvaluationError) as caught:
            publish(**(arguments | {"evaluations": {}} | given))
        return str(caught.value)

    assert "give RUN/checkpoints/global_step_N" in message(checkpoint=tmp_path)
    assert "give RUN/checkpoints/global_step_N" in message(checkpoint=tmp_path / "global_step_9")
    assert "not empty; give a new folder" in message(out=checkpoint)
    assert "no verdicts there" in message(evaluations={"a": tmp_path})
    (checkpoint / "actor" / "huggingface" / "config.json").unlink()
    assert "no actor/huggingface/config.json" in message()

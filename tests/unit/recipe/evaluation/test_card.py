"""What a model card says and what it keeps to itself; which checkpoints are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from recipe.evaluation.card import Evaluated, Trained, is_hub_name, lookup, model_card
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.folder import Record
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
    "constraint": {
        "inject": "sft",
        "lambda": None,
        "static_kl": {"coef": 0.01},
        "distill": {"top_k": 20},
    },
    "data": {"train_files": ["/home/someone/secret/train.parquet"]},
}


RECORD = {
    "model": "/home/someone/models/tuned",
    "weights_sha256": "0123456789abcdef",
    "engine": "vllm 0.28.0",
    "temperature": 0.0,
    "top_p": 1.0,
    "max_tokens": None,
    "limit": None,
    "scored_at": "2026-01-03T00:00:00+00:00",
    "mbpp_split": "test",
    "benchmarks": {
        "humaneval": {"problems": 1, "in_split": 1},
        "mbpp": {"problems": 974, "in_split": 500},
    },
}


def trained(step: int = 1, run: Any = RUN, config: Any = CONFIG, **more: Any) -> Trained:
    return Trained(step, run, config, **more)


def evaluated(*keys: tuple[str, str], **record: Any) -> Evaluated:
    """One problem a benchmark and protocol, solved."""
    verdict = Judged("a", 0, True, "accepted", 1, 1, 1.0)
    return Evaluated([score(*key, [verdict], (1,)) for key in keys], Record(RECORD | record))


def test_the_card_states_method_data_seed_scores_and_commit() -> None:
    card = model_card("tuned", trained(100), {"tuned": evaluated(("humaneval", "chat"))})
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
        ("distill", "| `constraint.distill.top_k`", "`constraint.inject`"),
    ],
)
def test_only_the_settings_that_the_kind_of_constraint_reads_are_shown(
    kind: str, shown: str, hidden: str
) -> None:
    card = model_card("tuned", trained(run=RUN | {"kind": kind}), {})
    assert shown in card
    settings = card.partition("## Settings")[2].partition("## Software")[0]
    assert hidden not in settings


def test_paths_of_the_training_machine_stay_private() -> None:
    config = CONFIG | {"actor_rollout_ref": {"model": {"path": "/home/someone/models/base"}}}
    card = model_card("tuned", trained(config=config), {})
    assert "someone" not in card
    assert "base_model" not in card
    assert "`base`" in card and "train.parquet" in card


def test_a_card_of_nothing_says_so() -> None:
    card = model_card("tuned", trained(7, {}, {}), {})
    assert "The run's configuration was not found." in card
    assert "Not evaluated." in card
    assert "Not stated. The licences of base model and training data decide" in card


def test_the_hub_reads_the_cards_head() -> None:
    own = evaluated(("humaneval", "chat"), ("humaneval", "bigcode"), ("mbpp", "chat"), limit=1)
    other = evaluated(("humaneval", "chat"))
    card = model_card("tuned", trained(license="apache-2.0"), {"tuned": own, "base": other})
    data: Any = ModelCard(card).data
    assert (data.license, data.base_model) == ("apache-2.0", "Qwen/Qwen2.5-Coder-1.5B-Instruct")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    # This model's alone, and of MBPP, of which 1 of 500 problems was evaluated, nothing.
    assert data.model_name == "tuned"
    assert [(r.dataset_type, r.metric_name, r.metric_value) for r in data.eval_results] == [
        ("openai/openai_humaneval", "pass@1, protocol chat, greedy", 1.0),
        ("openai/openai_humaneval", "pass@1, protocol bigcode, greedy", 1.0),
    ]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {},
            "Model `tuned`, weights `0123456789ab`, greedy, vllm 0.28.0, "
            "2026-01-03T00:00:00+00:00.",
        ),
        (
            {"temperature": 0.8, "top_p": 0.95, "max_tokens": 256, "weights_sha256": None},
            "Model `tuned`, weights unknown, temperature 0.8, top-p 0.95, at most 256 tokens, "
            "vllm 0.28.0, 2026-01-03T00:00:00+00:00.",
        ),
        (
            {"limit": 1, "benchmarks": {"humaneval": {"in_split": 164}}},
            "Model `tuned`, weights `0123456789ab`, greedy, vllm 0.28.0, "
            "2026-01-03T00:00:00+00:00, 1 of 164 problems of humaneval (--limit 1).",
        ),
    ],
)
def test_how_scores_came_about_stands_above_them(record: dict[str, Any], expected: str) -> None:
    one = evaluated(("humaneval", "chat"), **record)
    assert expected in model_card("tuned", trained(), {"tuned": one}).splitlines()


def test_the_card_says_how_to_ask_what_not_to_trust_and_what_to_cite() -> None:
    config = CONFIG | {"reward": {"custom_reward_function": {"path": "pkg://reward.apps"}}}
    card = model_card("tuned", trained(config=config, template="<user>{problem}\n<bot>"), {})
    assert "vllm serve tuned --generation-config vllm" in card
    assert "````text\n<user>{problem}\n<bot>\n````" in card
    assert "in exactly one block fenced as `python`" in card
    assert "run them in a sandbox" in card
    assert "arXiv:2603.18088" in card.partition("## Citation")[2]
    assert "fenced as `python`" not in model_card("tuned", trained(), {})


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
    assert "not what this checkpoint was merged into; give a new folder" in message(out=checkpoint)
    assert "no verdicts there" in message(evaluations={"a": tmp_path})
    (checkpoint / "actor" / "huggingface" / "config.json").unlink()
    assert "no actor/huggingface/config.json" in message()

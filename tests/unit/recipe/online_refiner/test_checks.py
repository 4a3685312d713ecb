"""What is refused before Ray or a model starts: one fault each, with the key and the fix."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.preflight.rules import faults_of, warnings_on
from recipe.online_refiner.resolve.resolving import resolve

Compose = Callable[..., DictConfig]
ASYNC = "trainer.v1.trainer_mode=colocate_async"
SELF_FED = ("constraint.inject=advantage",)
LORA = ("refiner.placement=shared_base", "actor_rollout_ref.model.lora_rank=8")


def refusal(config: DictConfig) -> str:
    faults = faults_of(resolve(config))
    assert faults
    return "\n".join(faults)


def test_the_quickstarts_configuration_passes(composed: Compose) -> None:
    assert faults_of(resolve(composed())) == []


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["trainer.v1.trainer_mode=fully_async"], "trainer.v1.trainer_mode='fully_async'"),
        (["trainer.v1.trainer_mode=separate_async"], "refiner.placement=colocated"),
        ([ASYNC, "refiner.placement=shared_base"], "refiner.placement=shared_base"),
        ([ASYNC, "refiner.source=ema"], "refiner.source=ema"),
        ([ASYNC, "refiner.decoding=verify"], "refiner.decoding=verify"),
        (["trainer.use_v1=false"], "trainer.use_v1"),
        (["actor_rollout_ref.rollout.multi_turn.enable=true"], "multi_turn.enable"),
        (["reward.reward_model.enable=true"], "reward.reward_model.enable_resource_pool"),
        (
            ["constraint.kind=none", "reward.reward_model.enable=true"],
            "reward.reward_model.enable_resource_pool",
        ),
        (
            ["constraint.kind=static_kl", "reward.reward_model.enable=true"],
            "reward.reward_model.enable_resource_pool",
        ),
        (["actor_rollout_ref.actor.shuffle=true"], "actor_rollout_ref.actor.shuffle"),
        (["constraint.kind=chord", "actor_rollout_ref.actor.shuffle=true"], "actor.shuffle"),
        (["actor_rollout_ref.actor.strategy=torchtitan"], "actor_rollout_ref.actor.strategy"),
        (["distillation.enabled=true"], "distillation.enabled"),
        (["constraint.inject=advantage", "algorithm.adv_estimator=gae"], "with a critic"),
        (["constraint.inject=advantage", "algorithm.adv_estimator=remax"], "'remax'"),
        (["algorithm.adv_estimator=refined_grpo"], "algorithm.adv_estimator=grpo"),
        (
            ["constraint.schedule=adaptive", "constraint.lambda_end=2"],
            "constraint.lambda_end=2.0 is above constraint.lambda=1.0",
        ),
        (
            ["constraint.conditioning=self_feeding"],
            "constraint.tokens=all: as a differentiable term",
        ),
        ([*SELF_FED, "constraint.align=edit"], "constraint.align=edit"),
        (
            [*SELF_FED, "constraint.conditioning=teacher_forcing", "constraint.tokens=aligned"],
            "constraint.tokens=aligned",
        ),
        (
            [*SELF_FED, "actor_rollout_ref.model.use_fused_kernels=true"],
            "actor_rollout_ref.model.use_fused_kernels=True",
        ),
        (
            [*SELF_FED, "actor_rollout_ref.actor.fsdp_config.pad_to_length=true"],
            "fsdp_config.pad_to_length=True",
        ),
        ([*SELF_FED, "actor_rollout_ref.actor.strategy=torchtitan"], "is written for FSDP"),
        ([*SELF_FED, "distillation.enabled=true"], "distillation.enabled=True"),
        (["constraint.kind=chord"], "extra_info.reference_solution"),
        (["constraint.kind=chord", "constraint.chord.peak=0.01"], "constraint.chord.valley=0.05"),
        (["data.train_files=/nowhere/train.parquet"], "data.train_files"),
        (["data.train_batch_size=17"], "data.train_batch_size=17"),
        (["data.train_batch_size=2"], "ppo_mini_batch_size=4"),
        (["actor_rollout_ref.model.path=/nowhere/model"], "actor_rollout_ref.model.path"),
        (["refiner.source=model", "refiner.model_path=./nowhere"], "model_path='./nowhere'"),
        (["refiner.source=model"], "refiner.model_path=None"),
        (["refiner.source=ema", "refiner.model_path=gpt2"], "refiner.model_path='gpt2'"),
        (["refiner.source=ema", "actor_rollout_ref.model.lora_rank=8"], "refiner.source=ema"),
        (["refiner.source=ema", "refiner.rollout.name=sglang"], "rollout.name='sglang'"),
        ([*LORA, "refiner.source=ema"], "refiner.source=ema"),
        (["refiner.decoding=verify", "refiner.temperature=0.005"], "refiner.decoding=verify"),
        (
            [
                *("refiner.decoding=verify", "refiner.temperature=1"),
                "actor_rollout_ref.rollout.full_determinism=true",
            ],
            "draw independently",
        ),
        (["refiner.decoding=copy", "refiner.rollout.name=sglang"], "refiner.decoding=copy"),
        ([*LORA, "refiner.decoding=copy"], "as well. Fix: refiner.decoding=plain or verify"),
        (["refiner.placement=shared_base"], "actor_rollout_ref.model.lora_rank=0"),
        ([*LORA, "actor_rollout_ref.model.lora.merge=true"], "lora.merge=True"),
        ([*LORA, "actor_rollout_ref.rollout.name=sglang"], "rollout.name='sglang'"),
        ([*LORA, "refiner.decoding=ngram"], "refiner.decoding=ngram"),
        (["refiner.template=code-v9"], "refiner.template='code-v9'"),
        (["refiner.feedback=verdict"], "refiner.template=code-feedback-v1"),
        (["refiner.template=code-feedback-v1"], "refiner.feedback=none"),
        (["refiner.block_tokens=32"], "refiner.template=code-blocks-v1"),
        (["refiner.template=code-blocks-v1"], "refiner.block_tokens=null"),
        (
            [
                *("refiner.feedback=failing_test", "refiner.template=code-feedback-v1"),
                "reward.custom_reward_function.path=pkg://reward.dialogue",
            ],
            "refiner.feedback=failing_test",
        ),
        (
            [
                *("refiner.feedback=verdict", "refiner.template=code-feedback-v1"),
                "reward.custom_reward_function.path=pkg://reward.dialogue",
            ],
            "gives a score and no verdict",
        ),
        (["data.max_prompt_length=2"], "data.max_prompt_length=2"),
        (["data.max_response_length=99999"], "max_response_length"),
        (["refiner.max_prompt_length=3"], "refiner.max_prompt_length=3"),
        (["refiner.max_prompt_length=99999"], "refiner.max_prompt_length=99999"),
    ],
)
def test_a_single_fault_is_named_with_its_fix(
    composed: Compose, overrides: list[str], key: str
) -> None:
    message = refusal(composed(*overrides))
    assert key in message
    assert "Fix: " in message or "built in: " in message


def test_a_penalty_that_group_normalisation_cancels_is_warned_about(composed: Compose) -> None:
    def warnings(*overrides: str) -> list[str]:
        found = warnings_on(resolve(composed("constraint.inject=reward", *overrides)))
        return [warning for warning in found if "constraint.inject=reward" in warning]

    (warning,) = warnings()
    assert "constraint.inject=advantage" in warning
    assert warnings("algorithm.adv_estimator=gae") == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("constraint.filter='off'",), "constraint.filter=off with refiner.perfect_reward=1: "),
        (("constraint.filter=not_worse", "constraint.inject=reward"), "refiner.perfect_reward=1: "),
        (("constraint.filter='off'", "refiner.perfect_reward=null"), ""),
        (("constraint.align=edit",), "constraint.align=edit is not read: only a penalty"),
        (("constraint.align=edit", "constraint.inject=advantage"), ""),
        (("constraint.accumulate=none",), "constraint.accumulate=none is not read: only a pen"),
        (
            ("constraint.accumulate=none", "constraint.inject=reward"),
            "constraint.accumulate=none is not read: the estimator cumulates rewards itself",
        ),
        (("constraint.accumulate=none", "constraint.inject=advantage"), ""),
        (("constraint.kind=none", "constraint.lambda=0.1"), "constraint.lambda=0.1 is not read"),
        (
            ("constraint.kind=static_kl", "constraint.lambda=0.1"),
            "constraint.lambda=0.1 is not read: the KL's coefficient is "
            "constraint.static_kl.coef=0.01",
        ),
        (
            ("constraint.kind=chord", "constraint.lambda=0.1"),
            "constraint.lambda=0.1 is not read: the weight is μ, from constraint.chord.peak=0.9 to",
        ),
        (("constraint.kind=static_kl",), ""),
    ],
)
def test_keys_of_the_constraint_that_are_not_read_are_warned_about(
    composed: Compose, overrides: tuple[str, ...], told: str
) -> None:
    config = composed("constraint.lambda=null", *overrides)
    found = [one for one in warnings_on(resolve(config)) if "refined" in one or "not read" in one]
    assert [one for one in found if told and told in one] == found[: bool(told)] == found


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (
            ("constraint.lambda_end=0",),
            "constraint.lambda_end=0 with constraint.schedule=constant: λ stays 0.5. Fix: "
            "constraint.schedule=linear, cosine or adaptive, or constraint.lambda_end=null",
        ),
        (
            ("constraint.schedule=cosine",),
            "constraint.schedule=cosine with constraint.lambda_end=null: λ stays 0.5. Fix: "
            "constraint.lambda_end=0, or constraint.schedule=constant",
        ),
        (("constraint.schedule=linear", "constraint.lambda_end=0"), ""),
        (("constraint.schedule=adaptive",), ""),
        (("constraint.lambda_end=0.5",), ""),
    ],
)
def test_a_schedule_that_leads_nowhere_is_refused(
    composed: Compose, overrides: tuple[str, ...], fault: str
) -> None:
    found = faults_of(resolve(composed("constraint.lambda=0.5", *overrides)))
    assert found == ([fault] if fault else [])


def test_a_reward_manager_of_ones_own_is_told_what_it_must_return(composed: Compose) -> None:
    name = "reward.reward_manager.source"
    found = list(warnings_on(resolve(composed(f"{name}=importlib"))))
    assert any(f"{name}=importlib" in one and "'score'" in one for one in found)
    assert not any(name in one for one in warnings_on(resolve(composed())))


@pytest.mark.parametrize(
    ("attention", "missing"),
    [("sdpa", ["vllm"]), ("flash_attention_2", ["flash_attn", "vllm"])],
)
def test_packages_that_are_not_there_are_named(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, attention: str, missing: list[str]
) -> None:
    key = "actor_rollout_ref.model.override_config.attn_implementation"
    plan = resolve(composed("trainer.device=cuda", f"{key}={attention}"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = re.findall(r"the package (\w+) is not installed", "\n".join(warnings_on(plan)))
    assert sorted(found) == missing


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (("actor_rollout_ref.rollout.n=8", "algorithm.filter_groups.enable=true"), False),
        (("actor_rollout_ref.rollout.n=12", "algorithm.filter_groups.enable=true"), True),
        (("actor_rollout_ref.rollout.n=12", "algorithm.filter_groups.enable=false"), False),
    ],
)
def test_group_sizes_whose_equal_rewards_verl_may_keep_are_warned_about(
    composed: Compose, overrides: tuple[str, ...], warned: bool
) -> None:
    # NumPy's sum of 12 times -0.3 is not exact, that of 8 is.
    assert np.std([-0.3] * 12) > 0 == np.std([-0.3] * 8)
    found = warnings_on(resolve(composed(*overrides)))
    assert any("standard deviation of exactly 0" in one for one in found) is warned


@pytest.mark.parametrize("kind", ["chord", "none", "static_kl"])
def test_without_refinements_it_is_said_that_nothing_keeps_a_group(
    composed: Compose, kind: str
) -> None:
    given = ("algorithm.filter_groups.enable=true", f"constraint.kind={kind}")

    def told(*overrides: str) -> bool:
        found = warnings_on(resolve(composed(*given, *overrides)))
        return any("constraint.keep_refined_groups=True" in one for one in found)

    assert told()
    assert not told("constraint.keep_refined_groups=false")
    assert not told("refiner.observe=true")
    assert not told("algorithm.filter_groups.enable=false")


def test_malformed_data_is_refused_by_file(composed: Compose, tmp_path: Path) -> None:
    text, empty, bare = (
        tmp_path / name for name in ("text.parquet", "empty.parquet", "bare.parquet")
    )
    text.write_text("not a table")
    schema = pa.schema([(name, pa.string()) for name in ("data_source", "prompt")])
    pq.write_table(schema.empty_table(), empty)
    pq.write_table(pa.table({"prompt": ["x"]}), bare)
    assert "not a parquet file" in refusal(composed(f"data.val_files={text}"))
    assert "it has no rows" in refusal(composed(f"data.val_files={empty}"))
    assert "columns data_source, reward_model, extra_info are missing" in refusal(
        composed(f"data.val_files={bare}")
    )


def test_a_model_without_a_chat_template_is_refused(composed: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ensure_checkpoint(), folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"chat_template"', '"no_template"'))
    assert "has no chat template" in refusal(composed(f"actor_rollout_ref.model.path={folder}"))

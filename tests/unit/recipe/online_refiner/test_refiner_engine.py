"""How the refiner's engine is told to decode: what `auto` becomes, and what forbids speculation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.resolve.refiner_engine import end_ids
from recipe.online_refiner.resolve.resolving import resolve

Compose = Callable[..., DictConfig]


def decoding(config: DictConfig) -> tuple[str, str]:
    choice = resolve(config).decoding
    return str(choice.decoding), choice.why


def test_auto_is_resolved_once_and_for_every_process(composed: Compose) -> None:
    """The tests' environment has vLLM 0.28, which takes our proposer."""
    config = composed()
    assert config.refiner.decoding == "auto"
    first = resolve(config)
    assert first.decoding.decoding == config.refiner.decoding == "copy"
    assert resolve(config).refining.decoding == first.refining.decoding


def test_on_a_gpu_the_choice_says_what_would_show_a_better_one(composed: Compose) -> None:
    chosen, why = decoding(composed("trainer.device=cuda"))
    assert chosen == "ngram"
    assert "scripts/gpu_acceptance.py" in why and "refiner.decoding=copy" in why


def test_what_is_configured_is_not_second_guessed(composed: Compose) -> None:
    assert decoding(composed("refiner.decoding=verify")) == ("verify", "as configured")


def test_a_run_that_does_not_refine_resolves_nothing(composed: Compose) -> None:
    config = composed("constraint.kind=none")
    resolve(config)
    assert config.refiner.decoding == "auto"


def test_the_judge_is_asked_for_the_failing_test_only_where_the_refiner_is_told(
    composed: Compose,
) -> None:
    told = composed("refiner.feedback=failing_test", "refiner.template=code-feedback-v1")
    silent = composed()
    for config in (told, silent):
        resolve(config)
    function = told.reward.custom_reward_function
    default = silent.reward.custom_reward_function.get("reward_kwargs") or {}
    assert function.reward_kwargs.show_failing_test is True
    assert "show_failing_test" not in default


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            "actor_rollout_ref.rollout.engine_kwargs.vllm.speculative_config={method: suffix}",
            "speculate already",
        ),
        ("refiner.rollout={engine_kwargs: {vllm: {async_scheduling: true}}}", "asynchronous"),
        ("refiner.rollout={pipeline_model_parallel_size: 2}", "pipeline"),
        ("actor_rollout_ref.rollout.mtp={enable: true, enable_rollout: true}", "MTP"),
        ("actor_rollout_ref.rollout.disaggregation.enabled=true", "apart"),
        ("refiner.rollout={name: sglang}", "on cpu"),
    ],
)
def test_auto_stays_plain_where_speculation_could_break_the_run(
    composed: Compose, change: str, why: str
) -> None:
    chosen, reason = decoding(composed(change))
    assert chosen == "plain"
    assert why in reason


def test_the_number_of_draft_tokens_is_the_users(composed: Compose) -> None:
    drafts = "{engine_kwargs: {vllm: {speculative_config: {num_speculative_tokens: 16}}}}"
    assert decoding(composed(f"refiner.rollout={drafts}"))[0] == "copy"


def test_the_refiners_own_engine_counts(composed: Compose) -> None:
    config = composed("refiner.rollout={name: sglang}")
    assert resolve(config).engine == "sglang"


def test_end_tokens_are_those_of_the_models_generation_config(tmp_path: Path) -> None:
    assert end_ids(str(tmp_path)) == frozenset()
    for written, expected in (([3, 5], {3, 5}), (7, {7}), (None, set())):
        content = {"eos_token_id": written} if written is not None else {"do_sample": True}
        (tmp_path / "generation_config.json").write_text(json.dumps(content))
        assert end_ids(str(tmp_path)) == expected
    assert len(end_ids(str(ensure_checkpoint()))) == 1

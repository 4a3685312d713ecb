"""The reward before shaping, as verl's own reward managers leave it behind."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.queue.rollouts import _rollout
from recipe.online_refiner.records import Score
from recipe.online_refiner.scores import ScoreError, group_value, score_of, settle_score

RESPONSE_TOKENS = 10
CONFIG = {
    # 2 of its 10 tokens are free, the last 8 cost 0.8.
    "reward": {
        "reward_kwargs": {
            "max_resp_len": 10,
            "overlong_buffer_cfg": {"enable": True, "len": 8, "penalty_factor": 0.8, "log": False},
        },
        "timeout": 0.01,
    },
    "trainer": {"experiment_name": "test"},
}
MANAGERS = ("naive", "dapo", "gdpo", "rate_limited")


def judged(manager: str, function: Callable[..., Any]) -> dict[str, Any]:
    """What a reward manager of verl makes of one response of ten tokens."""
    tokenizer = AutoTokenizer.from_pretrained(ensure_checkpoint())

    async def run() -> dict[str, Any]:
        kind = get_reward_manager_cls(manager)
        one = kind(config=OmegaConf.create(CONFIG), tokenizer=tokenizer, compute_score=function)
        result: dict[str, Any] = await one.run_single(response())
        return result

    return asyncio.run(run())


def response() -> DataProto:
    ids = torch.ones(1, RESPONSE_TOKENS, dtype=torch.int64)
    mask = torch.ones(1, 2 + RESPONSE_TOKENS, dtype=torch.int64)
    fields = {"prompts": ids[:, :2], "responses": ids, "attention_mask": mask}
    columns = {
        "data_source": np.array(["test"]),
        "reward_model": np.array([{"ground_truth": ""}], dtype=object),
        "extra_info": np.array([{}], dtype=object),
    }
    return DataProto(batch=TensorDict(fields, batch_size=1), non_tensor_batch=columns)


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("as_dict", [True, False])
def test_it_is_the_functions_own_under_every_reward_manager(manager: str, as_dict: bool) -> None:
    def compute_score(**_: Any) -> Any:
        return {"score": 0.5, "acc": 1.0} if as_dict else 0.5

    result = judged(manager, compute_score)
    shaped = 0.5 - 0.8 if manager == "dapo" else 0.5
    assert float(result["reward_score"]) == pytest.approx(shaped)
    assert score_of(result["reward_extra_info"]) == Score(0.5)


def test_a_time_out_of_verls_is_no_score_of_zero() -> None:
    async def compute_score(**_: Any) -> float:
        await asyncio.Event().wait()
        return 1.0

    extras = judged("rate_limited", compute_score)["reward_extra_info"]
    assert extras["acc"] == 0.0
    assert score_of(extras) == Score(0.0, judged=False)


def test_a_reward_function_may_speak_of_time_outs_itself() -> None:
    assert score_of({"score": -0.6, "timeout": True}) == Score(-0.6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_finite_number_is_no_verdict(value: float) -> None:
    assert score_of({"score": value}) == Score(0.0, judged=False)


def test_a_judge_that_failed_has_given_no_verdict() -> None:
    extras = {"score": 0.0, "verdict": "internal_error", "judge_failed": 1.0}
    assert score_of(extras) == Score(0.0, "internal_error", judged=False)


@pytest.mark.parametrize("extras", [{}, {"reward": 1.0}, {"score": "high"}, {"acc": None}])
def test_what_cannot_be_told_is_refused_by_its_name(extras: dict[str, Any]) -> None:
    with pytest.raises(ScoreError, match=r"reward\.custom_reward_function") as refused:
        score_of(extras)
    assert "Fix: return a number" in str(refused.value)
    assert all(key in str(refused.value) for key in extras)


def test_a_settled_score_reads_the_same_ever_after() -> None:
    for extras in ({"acc": 0.5}, {"acc": 0.0, "error": "gone"}, {"score": float("nan")}):
        score = settle_score(extras)
        assert score_of(json.loads(json.dumps(extras))) == score
        assert extras["score"] == score.reward


def test_dynamic_sampling_compares_the_score_verls_reward_or_a_key_of_the_function() -> None:
    extras = {"acc": 0.5, "passed": 3}
    assert group_value(extras, "score", -0.3) == 0.5
    assert group_value(extras, "reward", -0.3) == -0.3
    assert group_value(extras, "passed", -0.3) == 3.0
    with pytest.raises(ScoreError, match="metric=passes: the reward function returned acc, passed"):
        group_value(extras, "passes", -0.3)


def row(extra_fields: dict[str, Any]) -> dict[str, Any]:
    """A row of verl's queue, as far as the trainer reads it."""
    ids = torch.tensor([1, 2])
    return {
        **{"uid": "a", "prompts": ids, "responses": ids, "response_mask": ids},
        **{"extra_info": {"index": 0}, "extra_fields": extra_fields},
    }


def test_the_trainer_reads_a_plain_number_and_names_a_row_that_has_none() -> None:
    read = _rollout("a_0_0", row({"reward_extra_info": {"acc": 0.5}}))
    assert (read.reward, read.judged) == (0.5, True)
    for extra_fields in ({"reward_extra_info": {"mine": 0.5}}, {}):
        with pytest.raises(ScoreError, match=r"reward\.reward_manager"):
            _rollout("a_0_0", row(extra_fields))

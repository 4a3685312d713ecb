"""The refined estimators: verl's own, minus the penalty that stands beside the call."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from recipe.online_refiner.advantage import penalised_by, register_refined_estimators
from recipe.online_refiner.agent_loop import refinable
from recipe.online_refiner.verl_keys import ESTIMATORS, refined_name

MASK = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
REWARDS = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, -0.3], [0.0, -0.6]])
GROUPS = np.array(["a", "a", "b", "b"], dtype=object)
PENALTY = torch.tensor([[0.0, 0.0], [4.0, 9.0], [1.0, 2.0], [0.0, 0.0]])


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    register_refined_estimators()
    register_refined_estimators()  # Twice, as in a process that trains twice.


def advantages(name: str, **config: object) -> torch.Tensor:
    others = {"gamma": 1.0, "norm_adv_by_std_in_grpo": True} | config
    values, _ = get_adv_estimator_fn(name)(
        token_level_rewards=REWARDS.clone(),
        response_mask=MASK,
        config=OmegaConf.create(others),
        index=GROUPS,
    )
    return values


@pytest.mark.parametrize("base", ESTIMATORS)
def test_lambda_times_the_penalty_is_taken_on_the_rollouts_tokens(base: str) -> None:
    plain = advantages(base)
    with penalised_by(PENALTY, lambda_=0.5):
        got = advantages(refined_name(base))
    assert torch.allclose(got, plain - 0.5 * PENALTY * MASK)
    assert got[1, 1] == plain[1, 1], "a token off the mask was penalised"


@pytest.mark.parametrize("base", ESTIMATORS)
def test_without_a_penalty_it_is_verls_estimator_bit_for_bit(base: str) -> None:
    assert torch.equal(advantages(refined_name(base)), advantages(base))
    with penalised_by(None, lambda_=0.5):
        assert torch.equal(advantages(refined_name(base)), advantages(base))
    with penalised_by(PENALTY, lambda_=0.5):
        pass
    assert torch.equal(advantages(refined_name(base)), advantages(base)), "the penalty outlived it"


def test_grpo_without_normalisation_stays_without() -> None:
    got = advantages("refined_grpo", norm_adv_by_std_in_grpo=False)
    assert got[0].tolist() == pytest.approx([0.5, 0.5])
    assert got[3].tolist() == pytest.approx([-0.15, -0.15])


def test_an_accepted_refinement_sets_a_rollout_apart_and_nothing_else_does() -> None:
    all_wrong = [refinable(-0.3, False, session) for session in range(3)]
    assert np.std(all_wrong) == 0
    assert np.std([*all_wrong, refinable(-0.3, True, 3)]) > 0
    assert np.std([refinable(-0.3, True, session) for session in range(3)]) > 0

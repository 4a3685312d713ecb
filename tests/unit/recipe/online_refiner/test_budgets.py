"""The refiner's token budgets, from the policy's and ours."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from recipe.online_refiner.resolve.resolving import resolve

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("changes", "prompt", "output"),
    [
        (["refiner.max_prompt_length=null"], 64 + 64 + 512, 64),  # s0, a and the template
        (["refiner.max_prompt_length=176"], 176, 64),
        (["refiner.max_prompt_length=176", "refiner.block_tokens=16"], 176, 2 * 16),
        (["refiner.max_prompt_length=176", "refiner.block_tokens=50"], 176, 64),
    ],
)
def test_the_context_holds_a_full_prompt_and_a_full_output_and_verls_free_place(
    composed: Compose, changes: list[str], prompt: int, output: int
) -> None:
    plan = resolve(composed(*changes))
    assert (plan.limits.max_prompt_tokens, plan.limits.max_output_tokens) == (prompt, output)
    assert plan.limits.context_tokens == prompt + output + 1

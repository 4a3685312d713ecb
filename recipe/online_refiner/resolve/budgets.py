"""Limits of one refinement in tokens and seconds, derived from the lengths of the policy."""

from omegaconf import DictConfig

from recipe.online_refiner.settings import Settings
from refiner_worker.client import RefineLimits

TEMPLATE_TOKENS = 512
"""Room for the template's own words if `refiner.max_prompt_length` is null (ours)."""


def refine_limits(config: DictConfig, settings: Settings) -> RefineLimits:
    """Bounds on one refinement; a' may be as long as a, since the policy is to learn it."""
    prompt_tokens = settings.refiner.max_prompt_length
    if prompt_tokens is None:
        lengths = config.data.max_prompt_length + config.data.max_response_length
        prompt_tokens = lengths + TEMPLATE_TOKENS
    return RefineLimits(
        max_prompt_tokens=prompt_tokens,
        max_response_tokens=config.data.max_response_length,
        deadline_s=settings.refiner.deadline_s,
        max_concurrency=settings.refiner.max_concurrency,
        block_tokens=settings.refiner.block_tokens,
    )

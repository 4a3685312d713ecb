"""A label and its weight as one value per token.

Every field with a value per token costs a batch the same, however little it holds: verl takes each
apart row by row for mini-batches and micro-batches. So the two share one, of 64 bits: the weight's
float32 above label + 1.
"""

import torch

from recipe.online_refiner.choices import NO_LABEL

BITS = 32


def coded(labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Labels, NO_LABEL included, with their weights in the loss; 0 if they are only measured."""
    plus_one = labels - NO_LABEL
    if weights is None:
        return plus_one
    return plus_one | (weights.float().view(torch.int32).long() << BITS)


def labels_plus_one(values: torch.Tensor) -> torch.Tensor:
    """The labels + 1, so that 0 is none."""
    return values & ((1 << BITS) - 1)


def weights(values: torch.Tensor) -> torch.Tensor:
    """The weights, in float32 as they were given."""
    return (values >> BITS).int().view(torch.float32)

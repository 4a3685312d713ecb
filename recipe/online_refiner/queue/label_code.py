"""A label and its row's number as one value per token.

Every field of a row costs a batch the same, however little it holds: verl takes each apart row by
row for mini-batches and micro-batches. So the two share one: number · 2^32 + label + 1.
"""

import torch

from recipe.online_refiner.choices import NO_LABEL

BITS = 32


def coded(labels: torch.Tensor, numbers: torch.Tensor | int = 0) -> torch.Tensor:
    """Labels, NO_LABEL included, with the numbers that the loss reports on them by."""
    return labels - NO_LABEL + (numbers << BITS)


def labels_plus_one(values: torch.Tensor) -> torch.Tensor:
    """The labels + 1, so that 0 is none."""
    return values & ((1 << BITS) - 1)


def numbers(values: torch.Tensor) -> torch.Tensor:
    """The numbers; 0 if the loss does not report on the token."""
    return values >> BITS

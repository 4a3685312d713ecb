"""What the trainer would have measured of a constraint's labels and rows, made up."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from recipe.online_refiner.choices import NO_LABEL
from recipe.online_refiner.method.constraint import Additions
from recipe.online_refiner.method.labels import RowLabels

CROSS_ENTROPY = 0.5
DIVERGENCE = 0.25


def measured(labels: Sequence[RowLabels]) -> list[torch.Tensor]:
    """c_t of 0.5 on every labelled step."""
    counts = [int((one.token_ids != NO_LABEL).sum()) for one in labels]
    return [torch.full((count,), CROSS_ENTROPY) for count in counts]


def measured_in_update(additions: Additions) -> list[torch.Tensor]:
    """c_t of the rows, then of the labels, then the divergence of the rows that have targets."""
    taught = [row for row in additions.rows if row.targets is not None]
    return [
        *(torch.full((len(row.response_ids),), CROSS_ENTROPY) for row in additions.rows),
        *measured(additions.labels),
        *(torch.full((len(row.response_ids),), DIVERGENCE) for row in taught),
    ]

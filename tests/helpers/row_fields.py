"""Rows as the fields of a batch, in the form in which verl's queue returns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def fields_of(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Scalars are stacked; tensors of one dimension are jagged, of equal length or not."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: torch.stack(values)
        if values[0].dim() == 0
        else torch.nested.as_nested_tensor(values, layout=torch.jagged)
        for name, values in columns.items()
    }

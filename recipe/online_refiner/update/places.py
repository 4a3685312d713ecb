"""Where the tokens of the responses stand among the packed tokens of a micro-batch.

Rows are packed one after another: B rows, N tokens of all sequences, M of all responses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict


@dataclass(frozen=True)
class Places:
    """Of each of the M response tokens.

    Attributes:
        row_M: its row. state_M: the place of the state that it is chosen in, which stands one place
            to the left of the token.
    """

    row_M: torch.Tensor
    state_M: torch.Tensor


def response_places(data: TensorDict, field: str) -> Places:
    """The places of the response tokens.

    Args:
        field: one with a value for each response token, jagged.
    """
    offsets, ends = data[field].offsets(), data["input_ids"].offsets()[1:]
    tokens = torch.arange(data[field].values().shape[0], device=offsets.device)
    rows = torch.arange(len(ends), device=offsets.device)
    row_M = rows.repeat_interleave(offsets.diff(), output_size=len(tokens))
    return Places(row_M, tokens + (ends - 1 - offsets[1:])[row_M])

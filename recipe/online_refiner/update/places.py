"""Where the tokens of the responses stand among the packed tokens of a micro-batch.

Rows are packed one after another: N tokens of all sequences, M of all responses.
"""

import torch
from tensordict import TensorDict


def response_places(data: TensorDict, field: str) -> torch.Tensor:
    """For each of the M response tokens the place of the state that it is chosen in. Shape (M,).

    The state stands one place to the left of its token.

    Args:
        field: one with a value for each response token, jagged.
    """
    offsets, ends = data[field].offsets(), data["input_ids"].offsets()[1:]
    count = data[field].values().shape[0]
    shifts = ends - 1 - offsets[1:]
    return torch.arange(count, device=offsets.device) + on_tokens_of(data, field, shifts)


def on_tokens_of(data: TensorDict, field: str, values: torch.Tensor) -> torch.Tensor:
    """A row's value on each of its response tokens. Shape (M,)."""
    count = data[field].values().shape[0]
    return values.repeat_interleave(data[field].offsets().diff(), output_size=count)

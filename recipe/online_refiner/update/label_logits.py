"""Labels on a row's own states: what the logits of the pass say of them, by a hook of verl.

Margins are returned, log π(label) - log π(own token), which are differences of two logits: the
log-prob of the own token, which verl takes anyway, holds the normalisation of both.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict

from recipe.online_refiner.choices import LABEL_FIELD, LABEL_MARGIN
from recipe.online_refiner.queue.label_code import labels_plus_one
from recipe.online_refiner.update.logit_layout import laid_out, on_states, own_tokens, picked
from recipe.online_refiner.update.places import response_places


def label_margins(
    logits: torch.Tensor, data: TensorDict, strategy: str, data_format: str
) -> dict[str, torch.Tensor]:
    """log π(label) - log π(own token) in each state, 0 in those without a label. Shape (1, N).

    Args:
        logits: divided by the temperature. data: the micro-batch, whole. strategy: the actor's.
        data_format: of Megatron's logits, thd or bshd.
    """
    layout = (logits, strategy, data_format)
    places = response_places(data, LABEL_FIELD)
    plus_one = on_states(data, places, labels_plus_one(data[LABEL_FIELD].values()))
    labels, own = laid_out(plus_one, *layout), laid_out(own_tokens(data), *layout)
    margins = torch.zeros(labels.shape, dtype=torch.float32, device=logits.device)
    # A label that is the row's own token has no margin: most of them, if a' copies.
    asked = ((labels > 0) & (labels - 1 != own)).nonzero(as_tuple=True)
    if len(asked[0]) == 0:
        return {LABEL_MARGIN: margins}
    pairs = torch.stack([labels[asked] - 1, own[asked]])
    found = picked(logits, asked, pairs, split=strategy == "megatron")
    return {LABEL_MARGIN: margins.to(found.dtype).index_put(asked, found[0] - found[1])}

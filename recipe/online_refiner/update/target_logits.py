"""Distributions that a row's states are taught: what the logits of the pass say of their tokens.

Of the policy the divergence needs two sums over differences of logits, over the target's tokens and
over all others (`maths.divergence_from_top_tokens`): two numbers a token leave the pass. The second
is asked for in the states alone in which the target leaves something to other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from recipe.online_refiner.choices import (
    NO_LABEL,
    TARGET_IDS_FIELD,
    TARGET_LOG_PROBS_FIELD,
    TARGET_LOG_REST,
    TARGET_MARGIN,
)
from recipe.online_refiner.method.maths import rest_of
from recipe.online_refiner.update.logit_layout import laid_out, on_states, own_tokens, picked
from recipe.online_refiner.update.other_logits import log_sum_of_others
from recipe.online_refiner.update.places import Places, response_places
from refiner_worker.top_tokens import TopTokens

Fields = dict[str, torch.Tensor]


def target_fields(targets: TopTokens | None) -> Fields:
    """A row's fields: ids and log-probs of its targets, flat; without any, NO_LABEL.

    Flat, since rows of all shapes travel as one jagged tensor, and a row that lacked a field would
    make it vanish for the whole batch.
    """
    if targets is None:
        return {
            TARGET_IDS_FIELD: torch.tensor([NO_LABEL], dtype=torch.int32),
            TARGET_LOG_PROBS_FIELD: torch.zeros(1),
        }
    return {
        TARGET_IDS_FIELD: torch.tensor(targets.token_ids).flatten(),
        TARGET_LOG_PROBS_FIELD: torch.tensor(targets.log_probs).flatten(),
    }


def targets_of(data: TensorDict) -> list[tuple[torch.Tensor, torch.Tensor] | None]:
    """Of each row the ids and log-probs of its targets, both (U, k); None if it has none."""
    columns = (data[name].unbind() for name in (TARGET_IDS_FIELD, TARGET_LOG_PROBS_FIELD))
    return [
        None
        if int(ids[0]) == NO_LABEL
        else (ids.view(len(response), -1).long(), log_probs.view(len(response), -1))
        for ids, log_probs, response in zip(*columns, data["responses"].unbind(), strict=True)
    ]


def packed_log_probs(data: TensorDict, places: Places) -> tuple[torch.Tensor, torch.Tensor]:
    """log q on the M response tokens of all rows, -inf without a token or a target; and flags of
    the tokens of rows that have targets. Shapes (M, k), (M,).
    """
    targets, device = targets_of(data), data["responses"].device
    lengths = data["responses"].offsets().diff().tolist()
    k = max((one[1].shape[1] for one in targets if one is not None), default=1)
    taught = [one is not None for one in targets]
    rows = [
        torch.full((length, k), -torch.inf, device=device) if one is None else one[1]
        for one, length in zip(targets, lengths, strict=True)
    ]
    return torch.cat(rows), torch.tensor(taught, device=device)[places.row_M]


def target_sums(logits: torch.Tensor, data: TensorDict, strategy: str, data_format: str) -> Fields:
    """The two sums for each state's target, 0 without one. Shapes (1, N).

    Args:
        logits: divided by the temperature. data: the micro-batch, whole. strategy: the actor's.
        data_format: of Megatron's logits, thd or bshd.
    """
    targets = targets_of(data)
    layout, split = (logits, strategy, data_format), strategy == "megatron"
    places = response_places(data, "responses")
    numbers = laid_out(on_states(data, places, _numbers(targets, places)), *layout)
    asked = (numbers > 0).nonzero(as_tuple=True)
    zeros = torch.zeros(numbers.shape, dtype=torch.float32, device=logits.device)
    if len(asked[0]) == 0:
        return {TARGET_MARGIN: zeros, TARGET_LOG_REST: zeros}
    rows = numbers[asked] - 1
    given = [one for one in targets if one is not None]
    ids, log_q = (torch.cat(column)[rows] for column in zip(*given, strict=True))
    own = laid_out(own_tokens(data), *layout)[asked]
    own_logits, *listed = picked(logits, asked, torch.cat([own[None], ids.T]), split)
    margins = torch.stack(listed, dim=1) - own_logits[:, None]
    weighted = (log_q.exp().to(margins.dtype) * margins).where(log_q.isfinite(), 0.0)
    zeros = zeros.to(margins.dtype)
    # Only states in which the target leaves something to other tokens are read as a whole.
    leaves = rest_of(log_q) > 0
    states = tuple(index[leaves] for index in asked)
    ids = ids.where(log_q.isfinite(), ids[:, :1])[leaves]
    log_rests = log_sum_of_others(logits, states, ids, split) - own_logits[leaves]
    return {
        TARGET_MARGIN: zeros.index_put(asked, weighted.sum(dim=1)),
        TARGET_LOG_REST: zeros.index_put(states, log_rests),
    }


def _numbers(
    targets: Sequence[tuple[torch.Tensor, torch.Tensor] | None], places: Places
) -> torch.Tensor:
    """The number from 1 of each response token's target among those of all rows; 0 without one."""
    flags = torch.tensor([one is not None for one in targets], device=places.row_M.device)
    taught = flags[places.row_M]
    return taught.cumsum(dim=0) * taught

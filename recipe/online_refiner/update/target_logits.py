"""Distributions that a row's states are taught: what the logits of the pass say of their tokens.

Of the policy's log-probs of a target's k tokens the divergence needs two sums over differences of
logits (`maths.divergence_from_top_tokens`), so that neither a softmax over the vocabulary is made
again nor more than two numbers a token leave the pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from recipe.online_refiner.choices import (
    NO_LABEL,
    TARGET_IDS_FIELD,
    TARGET_LOG_PROBS_FIELD,
    TARGET_LOG_SUM,
    TARGET_MARGIN,
)
from recipe.online_refiner.update.logit_layout import laid_out, on_states, own_tokens, picked
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


def padded_log_probs(targets: Sequence[tuple[torch.Tensor, torch.Tensor] | None]) -> torch.Tensor:
    """log q of all rows, -inf where a row has no token or no target. Shape (B, U, k)."""
    shapes = [one[1].shape for one in targets if one is not None]
    longest, k = (max((shape[at] for shape in shapes), default=1) for at in (0, 1))
    given = [one[1] for one in targets if one is not None]
    device = given[0].device if given else None
    padded = torch.full((len(targets), longest, k), -torch.inf, device=device)
    for row, one in zip(padded, targets, strict=True):
        if one is not None:
            row[: len(one[1])] = one[1]
    return padded


def target_sums(logits: torch.Tensor, data: TensorDict, strategy: str, data_format: str) -> Fields:
    """The two sums over the k tokens of each state's target, 0 without one. Shapes (1, N).

    Args:
        logits: divided by the temperature. data: the micro-batch, whole. strategy: the actor's.
        data_format: of Megatron's logits, thd or bshd.
    """
    targets = targets_of(data)
    layout = (logits, strategy, data_format)
    numbers = laid_out(on_states(data, _numbers(data, targets)), *layout)
    asked = (numbers > 0).nonzero(as_tuple=True)
    zeros = torch.zeros(numbers.shape, dtype=torch.float32, device=logits.device)
    if len(asked[0]) == 0:
        return {TARGET_MARGIN: zeros, TARGET_LOG_SUM: zeros}
    rows = numbers[asked] - 1
    given = [one for one in targets if one is not None]
    ids, log_q = (torch.cat(column)[rows].T for column in zip(*given, strict=True))
    own = laid_out(own_tokens(data), *layout)[asked]
    found = picked(logits, asked, torch.cat([own[None], ids]), split=strategy == "megatron")
    margins = (found[1:] - found[0]).where(torch.isfinite(log_q), -torch.inf)
    weighted = (log_q.exp().to(found.dtype) * margins).where(torch.isfinite(log_q), 0.0)
    zeros = zeros.to(found.dtype)
    return {
        TARGET_MARGIN: zeros.index_put(asked, weighted.sum(dim=0)),
        TARGET_LOG_SUM: zeros.index_put(asked, margins.logsumexp(dim=0)),
    }


def _numbers(
    data: TensorDict, targets: Sequence[tuple[torch.Tensor, torch.Tensor] | None]
) -> list[torch.Tensor]:
    """The number from 1 of each response token's target among those of all rows; 0 without one."""
    numbers, count = [], 0
    for response, target in zip(data["responses"].unbind(), targets, strict=True):
        theirs = torch.zeros_like(response)
        if target is not None:
            theirs = count + 1 + torch.arange(len(response), device=response.device)
            count += len(response)
        numbers.append(theirs)
    return numbers

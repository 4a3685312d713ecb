"""One step's kept refinements: their cross entropy by the actor, and its way into the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from torch.nn.utils.rnn import pad_sequence
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_from_nested, response_to_nested

from recipe.online_refiner.constraint import (
    aligned,
    carrying_tokens,
    penalised,
    reduced,
    sft_weights,
    token_cross_entropy,
)
from recipe.online_refiner.episodes import Episode
from recipe.online_refiner.mixed_update import WeighedResponse
from recipe.online_refiner.queue_rows import RolloutRow, ranks_of, temporary_rows
from recipe.online_refiner.rows import response_row, rounded_up
from recipe.online_refiner.settings import ConstraintSettings

CROSS_ENTROPY_PARTITION = "refine_ce"
"""TransferQueue partition of rows whose log-probs are wanted; verl's samples live in `train`."""


@dataclass(frozen=True)
class Kept:
    """A rollout whose refinement the filter kept.

    Attributes:
        key: the rollout's row. episode: with its cross entropy.
        mask: U flags, 1 on the tokens that carry the constraint.
    """

    key: str
    episode: Episode
    mask: torch.Tensor

    @property
    def cross_entropy(self) -> torch.Tensor:
        """c_t in nats, 0 off the mask. Shape (U,)."""
        assert self.episode.cross_entropy is not None
        return torch.tensor(self.episode.cross_entropy) * self.mask


def measure(
    rows: Sequence[RolloutRow],
    worker_group: Any,
    settings: ConstraintSettings,
    temperature: float,
    micro_batch_size: int,
) -> list[Kept]:
    """The kept refinements among the rows, with the policy's cross entropy on each given s0 alone.

    Refinements on which it is not finite are left out: the caller sees them missing.

    Args:
        temperature: the rollout's, so that c_t is of the distribution that is trained.
        micro_batch_size: rows per forward pass and rank; 1 where verl packs by token count.
    """
    accepted = [
        (row.key, row.episode) for row in rows if row.episode and row.episode.record.accepted
    ]
    if not accepted:
        return []
    log_probs = _log_probs(
        worker_group, [episode for _, episode in accepted], temperature, micro_batch_size
    )
    kept = []
    for (key, episode), values in zip(accepted, log_probs, strict=True):
        cross_entropy = token_cross_entropy(values, torch.ones_like(values))
        if bool(torch.isfinite(cross_entropy).all()):
            record = episode.record
            flags = carrying_tokens(list(record.copied), record.divergence, settings.tokens)
            measured = replace(episode, cross_entropy=tuple(cross_entropy.tolist()))
            kept.append(Kept(key, measured, torch.tensor(flags, dtype=torch.float32)))
    return kept


def _log_probs(
    worker_group: Any, episodes: Sequence[Episode], temperature: float, micro_batch_size: int
) -> list[torch.Tensor]:
    rows = [response_row(e.prompt_ids, e.record.token_ids) for e in episodes]
    count = rounded_up(len(rows), ranks_of(worker_group) * micro_batch_size)
    shortest = min(rows, key=lambda row: len(row["input_ids"]))
    rows += [shortest] * (count - len(rows))
    with temporary_rows(rows, CROSS_ENTROPY_PARTITION) as batch:
        batch.extra_info = {
            "calculate_entropy": False,
            "compute_loss": False,
            "temperature": temperature,
        }
        worker_group.compute_log_prob(batch)
        data = tq.kv_batch_get(
            keys=batch.keys,
            partition_id=batch.partition_id,
            select_fields=["log_probs", "response_mask"],
        )
    log_probs = response_from_nested(data["log_probs"], data["response_mask"])
    return list(log_probs.unbind())[: len(episodes)]


def penalties(kept: Sequence[Kept], settings: ConstraintSettings, lambda_: float) -> list[float]:
    """λ·reduce(c_t) of each kept refinement, in units of reward."""
    masses = [
        reduced(k.cross_entropy[None], k.mask[None], settings.reduce).sum().item() for k in kept
    ]
    return [lambda_ * mass for mass in masses]


def inject_into_advantages(
    batch: KVBatchMeta, kept: Sequence[Kept], settings: ConstraintSettings, lambda_: float
) -> None:
    """Take the penalty from the stored advantages of the rollouts that the kept refine."""
    if not kept or lambda_ == 0:
        return
    keys = [k.key for k in kept]
    data = tq.kv_batch_get(
        keys=keys, partition_id=batch.partition_id, select_fields=["advantages", "response_mask"]
    )
    response_mask = data["response_mask"]
    padded = data.to_padded_tensor()
    mask_BU = pad_sequence([k.mask for k in kept], batch_first=True)
    ce_BU = pad_sequence([k.cross_entropy for k in kept], batch_first=True)
    mass_BU = reduced(ce_BU, mask_BU, settings.reduce)
    penalty_BT = aligned(mass_BU, padded["response_mask"], settings.align)
    advantages = penalised(padded["advantages"], penalty_BT, padded["response_mask"], lambda_)
    fields = TensorDict(
        {"advantages": response_to_nested(advantages, response_mask)}, batch_size=len(keys)
    )
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=fields)


def weighed_responses(
    kept: Sequence[Kept], settings: ConstraintSettings, lambda_: float, rows: int
) -> list[WeighedResponse]:
    """What the actor's update is to learn beside the policy loss; empty where λ is 0.

    Args:
        rows: rollouts in one mini-batch of the policy.
    """
    if lambda_ == 0:
        return []
    return [
        WeighedResponse(
            k.episode.prompt_ids,
            k.episode.record.token_ids,
            sft_weights(k.mask[None], lambda_, rows, settings.reduce)[0],
        )
        for k in kept
    ]

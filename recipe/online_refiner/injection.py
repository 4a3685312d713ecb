"""One step's kept refinements: their cross entropy by the actor, and their ways into the update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from torch.nn.utils.rnn import pad_sequence
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_from_nested, response_to_nested

from recipe.online_refiner.constraint import (
    Align,
    aligned,
    carrying_tokens,
    penalised,
    reduced,
    sft_weights,
)
from recipe.online_refiner.episodes import Episode, RolloutRow
from recipe.online_refiner.mixed_update import WeighedResponse
from recipe.online_refiner.queue_rows import ranks_of, temporary_rows
from recipe.online_refiner.rows import response_row, rounded_up
from recipe.online_refiner.settings import ConstraintSettings

CROSS_ENTROPY_PARTITION = "refine_ce"
"""TransferQueue partition of rows whose log-probs are wanted; verl's samples live in `train`."""


@dataclass(frozen=True)
class Kept:
    """A rollout whose refinement the filter kept.

    Attributes:
        key: the rollout's row. episode: with its cross entropy, once that is measured.
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


def kept_refinements(rows: Sequence[RolloutRow], settings: ConstraintSettings) -> list[Kept]:
    """What the filter kept among the rows, its cross entropy not yet measured."""
    kept = []
    for row in rows:
        if row.episode is not None and row.episode.record.accepted:
            record = row.episode.record
            flags = carrying_tokens(list(record.copied), record.divergence, settings.tokens)
            kept.append(Kept(row.key, row.episode, torch.tensor(flags, dtype=torch.float32)))
    return kept


def with_cross_entropy(kept: Sequence[Kept], values: Sequence[torch.Tensor]) -> list[Kept]:
    """The kept refinements with c_t in nats; those where it is not finite are left out."""
    return [
        replace(k, episode=replace(k.episode, cross_entropy=tuple(cross_entropy.tolist())))
        for k, cross_entropy in zip(kept, values, strict=True)
        if bool(torch.isfinite(cross_entropy).all())
    ]


def measure(
    kept: Sequence[Kept], worker_group: Any, temperature: float, micro_batch_size: int
) -> list[Kept]:
    """The policy's cross entropy on each kept refinement given s0 alone, by a forward pass.

    Args:
        temperature: the rollout's, so that c_t is of the distribution that is trained.
        micro_batch_size: rows per forward pass and rank; 1 where verl packs by token count.
    """
    if not kept:
        return []
    rows = [response_row(k.episode.prompt_ids, k.episode.record.token_ids) for k in kept]
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
    log_probs = response_from_nested(data["log_probs"], data["response_mask"]).unbind()
    return with_cross_entropy(kept, [-values.float() for values in log_probs[: len(kept)]])


def penalties(kept: Sequence[Kept], settings: ConstraintSettings, lambda_: float) -> list[float]:
    """λ·reduce(c_t) of each kept refinement, in units of reward."""
    masses = [
        reduced(k.cross_entropy[None], k.mask[None], settings.reduce).sum().item() for k in kept
    ]
    return [lambda_ * mass for mass in masses]


def penalty_on_rollouts(
    kept: Sequence[Kept], response_mask_BT: torch.Tensor, settings: ConstraintSettings
) -> torch.Tensor:
    """Σ-preserving penalty before λ on the tokens of the B rollouts that are refined. (B, T).

    Args:
        response_mask_BT: of the rollouts, in the order of `kept`.
    """
    mask_BU = pad_sequence([k.mask for k in kept], batch_first=True)
    ce_BU = pad_sequence([k.cross_entropy for k in kept], batch_first=True)
    sources_BU2 = None
    if settings.align is Align.EDIT:
        sources_BU2 = pad_sequence(
            [torch.tensor(k.episode.record.sources) for k in kept], batch_first=True
        )
    mass_BU = reduced(ce_BU, mask_BU, settings.reduce)
    return aligned(mass_BU, response_mask_BT, settings.align, sources_BU2)


def penalty_of_batch(
    batch: KVBatchMeta, kept: Sequence[Kept], settings: ConstraintSettings
) -> torch.Tensor | None:
    """The penalty before λ on every row of the batch, padded as verl pads it. (rows, T).

    None where nothing is kept.
    """
    if not kept:
        return None
    mask_BT = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"]
    ).to_padded_tensor()["response_mask"]
    rows = [batch.keys.index(k.key) for k in kept]
    penalty_BT = torch.zeros(mask_BT.shape)
    penalty_BT[rows] = penalty_on_rollouts(kept, mask_BT[rows], settings)
    return penalty_BT


@contextmanager
def penalised_rewards(
    batch: KVBatchMeta, kept: Sequence[Kept], settings: ConstraintSettings, lambda_: float
) -> Iterator[None]:
    """Within the block the stored rewards are r_t - λ·m·c_t; afterwards they are as they were.

    The advantages and returns computed inside carry the penalty; what is logged does not.
    """
    if not kept or lambda_ == 0:
        yield
        return
    keys = [k.key for k in kept]
    data = tq.kv_batch_get(
        keys=keys, partition_id=batch.partition_id, select_fields=["rm_scores", "response_mask"]
    )
    raw, nested_mask = data["rm_scores"].clone(), data["response_mask"]
    padded = data.to_padded_tensor()
    penalty_BT = penalty_on_rollouts(kept, padded["response_mask"], settings)
    rewards = penalised(padded["rm_scores"], penalty_BT, padded["response_mask"], lambda_)
    _put_rewards(batch, keys, response_to_nested(rewards, nested_mask))
    try:
        yield
    finally:
        _put_rewards(batch, keys, raw)


def _put_rewards(batch: KVBatchMeta, keys: list[str], rewards: torch.Tensor) -> None:
    fields = TensorDict({"rm_scores": rewards}, batch_size=len(keys))
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=fields)


def weighed_responses(
    kept: Sequence[Kept], settings: ConstraintSettings, lambda_: float, rows: int
) -> list[WeighedResponse]:
    """What the actor's update is to learn beside the policy loss.

    Args:
        rows: rollouts in one mini-batch of the policy.
    """
    return [
        WeighedResponse(
            k.episode.prompt_ids,
            k.episode.record.token_ids,
            sft_weights(k.mask[None], lambda_, rows, settings.reduce)[0],
        )
        for k in kept
    ]

"""Rows for verl's engine: a prompt with a refined response, and their order in a mixed batch.

verl reads a row as 1-D tensors without padding: P prompt tokens, U response tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from recipe.online_refiner.choices import LABEL_FIELD, NUMBER_FIELD, WEIGHT_FIELD
from recipe.online_refiner.method.constraint import ExtraRow
from recipe.online_refiner.queue.label_code import coded
from recipe.online_refiner.update.target_logits import target_fields

RESPONSE_FIELDS = (
    "advantages",
    "returns",
    "old_log_probs",
    "ref_log_prob",
    "rollout_log_probs",
    "rollout_is_weights",
)
"""Per-response fields of a policy row that verl's actor losses may read. A row that lacks one
which the others have would make it vanish for the whole batch, so extra rows carry zeros."""

Key = TypeVar("Key")


def response_row(prompt_ids: Sequence[int], response_ids: Sequence[int]) -> dict[str, torch.Tensor]:
    """One (s0, a') row whose log-probs are wanted; every response token counts."""
    prompts = torch.tensor(prompt_ids, dtype=torch.int64)
    responses = torch.tensor(response_ids, dtype=torch.int64)
    mask = torch.ones_like(responses)
    return {
        "prompts": prompts,
        "responses": responses,
        "input_ids": torch.cat([prompts, responses]),
        "position_ids": torch.arange(len(prompts) + len(responses)),
        "response_mask": mask,
        "loss_mask": mask,
    }


@dataclass(frozen=True)
class RowForm:
    """What every row of an update has, so that the queue returns it.

    Attributes:
        fields: those of RESPONSE_FIELDS that the policy's rows carry.
        with_labels: whether the policy's rows carry labels; those of an extra row are its tokens.
        with_targets: whether any row has distributions over its tokens.
    """

    fields: Sequence[str]
    with_labels: bool = False
    with_targets: bool = False


def constraint_row(extra: ExtraRow, number: int, form: RowForm) -> dict[str, torch.Tensor]:
    """An (s0, a') row for the actor's update: invisible to the policy loss, weighted by ours.

    Args:
        number: by which the loss reports on the row, from 1; 0 if nobody asks.
    """
    row = response_row(extra.prompt_ids, extra.response_ids)
    silent = torch.zeros_like(row["responses"])
    row["response_mask"] = silent
    row["loss_mask"] = silent
    row[NUMBER_FIELD] = torch.tensor(number)
    if form.with_labels:
        row[LABEL_FIELD] = coded(row["responses"], extra.weights)
    else:
        row[WEIGHT_FIELD] = extra.weights.float()
    if form.with_targets:
        row.update(target_fields(extra.targets))
    zeros = torch.zeros_like(extra.weights, dtype=torch.float32)
    row.update(dict.fromkeys(form.fields, zeros))
    return row


def rounded_up(count: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `count`."""
    return -(-count // multiple) * multiple


def interleaved(
    policy: Sequence[Key], extra: Sequence[Key], ranks: int, mini_batches: int
) -> list[Key]:
    """Order a mixed batch so that each mini-batch of each rank gets its share of extra rows.

    verl gives each rank one contiguous chunk and cuts the chunk into mini-batches in order. Extra
    rows are dealt out one by one, to the mini-batches first and then to the ranks: row i is in
    mini-batch i mod `mini_batches` on any number of ranks, and what comes first in `extra` is
    spread evenly, whatever comes last. Both counts must be multiples of ranks · mini_batches.
    """
    blocks = ranks * mini_batches
    per_policy = len(policy) // blocks
    order: list[Key] = []
    for block in range(blocks):
        order.extend(policy[block * per_policy : (block + 1) * per_policy])
        order.extend(extra[block::blocks])
    return order

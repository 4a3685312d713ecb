"""CHORD's expert answers: the dataset's reference solutions, as the policy would have written them.

The baseline of arXiv 2508.11408 on the same code path as the dynamic constraint: the rows beside
the policy's are (s0, reference solution) in place of (s0, a').
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from recipe.online_refiner.constraint import expert_weights
from recipe.online_refiner.episodes import RolloutRow
from recipe.online_refiner.mixed_update import WeighedResponse
from refiner_worker.chat import Chat


def expert_responses(
    rows: Sequence[RolloutRow],
    chat: Chat,
    share: float,
    mini_batches: int,
    max_tokens: int,
) -> list[WeighedResponse]:
    """One weighed expert answer for each prompt of the batch that has one within `max_tokens`.

    Args:
        share: μ of this step. mini_batches: over which the answers are dealt out.
    """
    by_prompt = {row.uid: row for row in rows if row.reference}
    answers = [
        (row.prompt_ids, ids)
        for row in by_prompt.values()
        if len(ids := _answer_ids(row.reference, chat)) <= max_tokens
    ]
    if not answers:
        return []
    mask_RU = pad_sequence([torch.ones(len(ids)) for _, ids in answers], batch_first=True)
    weights_RU = expert_weights(mask_RU, share, mini_batches)
    return [
        WeighedResponse(prompt_ids, ids, weights[: len(ids)])
        for (prompt_ids, ids), weights in zip(answers, weights_RU, strict=True)
    ]


def _answer_ids(program: str, chat: Chat) -> list[int]:
    return chat.response_ids(f"```python\n{program.strip()}\n```")

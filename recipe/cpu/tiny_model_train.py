"""Warm start of the tiny model by supervised learning, in plain PyTorch on the CPU.

Muon (Jordan et al. 2024, as in torch.optim) on the matrices, AdamW on embeddings, norms and biases;
constant learning rate, then linear decay over the second half. The number of steps is fixed rather
than the time, so that the result does not depend on the machine's speed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from recipe.cpu.muon import Muon
from recipe.cpu.tiny_model import build_model
from recipe.cpu.tiny_model_examples import Example, draw_example

_POOLED_BATCHES = 8


@dataclass(frozen=True)
class WarmStart:
    """Settings of one warm start."""

    seed: int = 0
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 8e-3
    prompt_loss_weight: float = 0.1
    warmup_steps: int = 20


@dataclass(frozen=True)
class Batch:
    """Right-padded rows. B examples, T tokens of the longest."""

    ids_BT: torch.Tensor
    attention_BT: torch.Tensor
    weights_BT: torch.Tensor  # loss weight of each token as a target


def warm_start(tokenizer: Qwen2Tokenizer, settings: WarmStart) -> Qwen2ForCausalLM:
    """A trained model. The same settings give the same weights on the same machine."""
    torch.manual_seed(settings.seed)
    model = build_model(tokenizer)
    teach_micro_apps(model, tokenizer, _optimizers(model, settings), settings)
    return model


def teach(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    optimizers: Sequence[torch.optim.Optimizer],
    factor: Callable[[int], float],
    steps: int,
) -> None:
    """Train `model` on the batches, and leave it in evaluation mode.

    Args:
        model: in place. batches: `steps` of them. optimizers: of its parameters.
        factor: of a step (from 0): what their learning rates are multiplied by. steps: in all.
    """
    model.train()
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    bar = tqdm(batches, total=steps, desc="warm start", unit="step")
    for batch in bar:
        loss = weighted_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


def teach_micro_apps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    optimizers: Sequence[torch.optim.Optimizer],
    settings: WarmStart,
) -> None:
    """Teach `model` to write programs for micro-APPS and to refine them."""
    batches = _batches(tokenizer, settings)
    teach(model, batches, optimizers, lambda step: _rate(step, settings), settings.steps)


def weighted_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Weighted mean cross entropy of each token given those before it (nats)."""
    logits_BTV = model(
        input_ids=batch.ids_BT, attention_mask=batch.attention_BT, use_cache=False
    ).logits
    targets = batch.ids_BT[:, 1:].flatten()
    ce = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), targets, reduction="none")
    weights = batch.weights_BT[:, 1:].flatten()
    return (ce * weights).sum() / weights.sum()


def collate(examples: list[Example], pad_id: int, prompt_loss_weight: float) -> Batch:
    """Prompt tokens weigh `prompt_loss_weight`, response tokens 1, padding 0."""
    longest = max(len(example.ids) for example in examples)
    ids_BT = torch.full((len(examples), longest), pad_id)
    weights_BT = torch.zeros(len(examples), longest)
    attention_BT = torch.zeros(len(examples), longest, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids_BT[row, :length] = torch.tensor(example.ids)
        attention_BT[row, :length] = 1
        weights_BT[row, : example.prompt_tokens] = prompt_loss_weight
        weights_BT[row, example.prompt_tokens : length] = 1.0
    return Batch(ids_BT, attention_BT, weights_BT)


def _batches(tokenizer: PreTrainedTokenizerBase, settings: WarmStart) -> Iterator[Batch]:
    """`steps` batches; examples of like length share one, which saves a third of the work."""
    rng = random.Random(f"warm-start/{settings.seed}")
    size = settings.batch_size
    done = 0
    while done < settings.steps:
        pool = [draw_example(tokenizer, rng) for _ in range(size * _POOLED_BATCHES)]
        pool.sort(key=lambda example: len(example.ids))
        starts = list(range(0, len(pool), size))
        rng.shuffle(starts)
        for start in starts[: settings.steps - done]:
            rows = pool[start : start + size]
            yield collate(rows, tokenizer.pad_token_id, settings.prompt_loss_weight)
            done += 1


def _rate(step: int, settings: WarmStart) -> float:
    """Factor on the learning rate: warm-up, constant, linear decay over the second half."""
    warm_up = min(1.0, (step + 1) / settings.warmup_steps)
    return warm_up * min(1.0, 2.0 * (1.0 - step / settings.steps))


def _optimizers(model: Qwen2ForCausalLM, settings: WarmStart) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    matrix_ids = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in matrix_ids]
    return [
        Muon(matrices, lr=settings.learning_rate),
        torch.optim.AdamW(others, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]

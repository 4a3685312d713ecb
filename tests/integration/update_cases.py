"""Whole updates by verl's own training engine on fixed rows, each from the same model.

    [torchrun --nproc-per-node RANKS] update_cases.py OUT.pt CASE...

Writes {case: (parameters, metrics)}. Every case is a fresh worker; the rows come in verl's order,
so that a rank takes one contiguous chunk of them. `START` is the model before any update, and
`plain_sft`, `plain_chord`, `plain_self_fed` and `plain_distilled` are the constraint's term as a
step written out in plain torch. The `measured…` cases are no updates: the vector is c_t on every
labelled step by a forward pass, and the metrics hold its log-probs.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.utils.ulysses import set_ulysses_sequence_parallel_group
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
    TrainingWorkerConfig,
)
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.losses import ppo_loss

from recipe.cpu.micro_apps import draw_task
from recipe.cpu.micro_corrupt import fenced
from recipe.cpu.micro_tasks import Split, Style
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.method.constraint import ExtraRow
from recipe.online_refiner.method.maths import Reduce, expert_weights, sft_weights
from recipe.online_refiner.queue.label_code import coded, labels_plus_one
from recipe.online_refiner.update.label_logits import label_margins
from recipe.online_refiner.update.logit_layout import HOOK
from recipe.online_refiner.update.loss import constrained_loss
from recipe.online_refiner.update.rows import (
    RowForm,
    constraint_row,
    interleaved,
    response_row,
)
from recipe.online_refiner.update.target_logits import target_fields, target_sums
from refiner_worker.top_tokens import TopTokens

Row = dict[str, torch.Tensor]
Pair = tuple[list[int], list[int]]
Outcome = tuple[torch.Tensor, dict[str, Any]]

POLICY_ROWS, EXTRA_ROWS = 8, 4
MAX_RESPONSE_TOKENS = 24
FIELDS = ("advantages", "old_log_probs")
LAMBDA = 0.5
LEARNING_RATE = {"SGD": 0.1, "AdamW": 1e-3}
TOKENS_A_MICRO_BATCH = 200
BY_TOKENS = 0
START = "start"
# φ is small on this model, and rounding would show in a small step.
CHORD_WEIGHT = 10.0
MU = 0.75
CHORD = (("policy_share", 0.75), ("expert_phi", True))
FP32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


@dataclass(frozen=True)
class Case:
    """One update.

    Attributes:
        lambda_: weight of the constraint's rows; None leaves the rows out, for verl's own loss.
        own_loss: our loss also without rows, as in the arms without a constraint.
        demonstrations: how many of the constraint's rows are CHORD's; the others are fillers.
        self_fed: labels on the policy's rows in place of the constraint's rows.
        distilled: the constraint's rows have targets; the last of them has none.
        micro_batch: rows per forward pass; BY_TOKENS lets verl pack them.
        policy_rows, extra_rows: which rows, in which order, before they are interleaved.
    """

    lambda_: float | None = LAMBDA
    own_loss: bool = False
    demonstrations: int = 0
    self_fed: bool = False
    distilled: bool = False
    policy_term: bool = True
    mini_batches: int = 1
    epochs: int = 1
    micro_batch: int = BY_TOKENS
    remove_padding: bool = False
    optimizer: str = "SGD"
    loss_agg_mode: str = "token-mean"
    settings: tuple[tuple[str, Any], ...] = ()
    policy_rows: tuple[int, ...] = tuple(range(POLICY_ROWS))
    extra_rows: tuple[int, ...] = tuple(range(EXTRA_ROWS))


ADAM = Case(optimizer="AdamW", mini_batches=2, epochs=2, micro_batch=2)
TWO = Case(mini_batches=2)
# Three demonstrations on two mini-batches, and a filler; the policy has a quarter of the loss.
DEMONSTRATIONS = Case(
    mini_batches=2,
    demonstrations=3,
    policy_rows=(0, 1, 4, 5, 2, 3, 6, 7),
    settings=(("policy_share", 1 - MU),),
)
SELF_FED = Case(self_fed=True, settings=tuple(HOOK.items()))
DISTILLED = Case(distilled=True, settings=tuple(HOOK.items()))
CASES = {
    "verl": replace(ADAM, lambda_=None),
    "weightless": replace(ADAM, lambda_=0.0),
    "verl_by_tokens": Case(lambda_=None),
    "unconstrained": Case(lambda_=None, own_loss=True),
    "weightless_by_tokens": Case(lambda_=0.0),
    "mixed": Case(),
    "one_micro_batch": Case(micro_batch=POLICY_ROWS + EXTRA_ROWS),
    "three_a_micro_batch": Case(micro_batch=3),
    "one_a_micro_batch": Case(micro_batch=1),
    "packed": Case(remove_padding=True),
    "sequence_mean": Case(loss_agg_mode="seq-mean-token-mean"),
    "chord": Case(lambda_=CHORD_WEIGHT, settings=CHORD),
    "two_mini_batches": TWO,
    "demonstrations": DEMONSTRATIONS,
    "demonstrations_on_two_ranks": replace(DEMONSTRATIONS, policy_rows=tuple(range(POLICY_ROWS))),
    "two_mini_batches_one_a_micro_batch": replace(TWO, micro_batch=1),
    # The rows that two ranks see in each of their mini-batches, on one rank.
    "two_mini_batches_as_on_two_ranks": replace(TWO, policy_rows=(0, 1, 4, 5, 2, 3, 6, 7)),
    "self_fed": SELF_FED,
    "self_fed_one_a_micro_batch": replace(SELF_FED, micro_batch=1),
    "self_fed_packed": replace(SELF_FED, remove_padding=True),
    "self_fed_weightless": replace(ADAM, self_fed=True, lambda_=0.0, settings=SELF_FED.settings),
    "self_fed_alone": replace(SELF_FED, policy_term=False),
    "distilled": DISTILLED,
    "distilled_one_a_micro_batch": replace(DISTILLED, micro_batch=1),
    "distilled_packed": replace(DISTILLED, remove_padding=True),
    "distilled_weightless": replace(ADAM, distilled=True, lambda_=0.0, settings=SELF_FED.settings),
    "distilled_alone": replace(DISTILLED, policy_term=False),
    "sft_alone": Case(policy_term=False),
    "chord_alone": Case(lambda_=CHORD_WEIGHT, policy_term=False, settings=CHORD),
}
PASSES = {
    "measured": SELF_FED,
    "measured_packed": replace(SELF_FED, remove_padding=True),
    "measured_one_a_micro_batch": replace(SELF_FED, micro_batch=1),
    "unmeasured": Case(lambda_=None),
}
"""Forward passes with labels, and one without."""
PLAIN_STEPS = {"plain_sft": (LAMBDA, False), "plain_chord": (CHORD_WEIGHT, True)}
"""By name: the weight of the rows, and whether φ is on."""


def pairs() -> list[Pair]:
    """Prompt and response of the policy's rows, then of the constraint's: short programs."""
    tokenizer = AutoTokenizer.from_pretrained(ensure_checkpoint())
    rng = random.Random(0)
    made = []
    for index in range(POLICY_ROWS + EXTRA_ROWS):
        task = draw_task(rng, Split.TRAIN)
        answer = tokenizer.encode(fenced(task.program(Style.draw(rng))))
        made.append((tokenizer.encode(task.statement(rng)), answer[: MAX_RESPONSE_TOKENS - index]))
    return made


def load_model() -> torch.nn.Module:
    """The tiny model in fp32, as the worker starts from it."""
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(
        ensure_checkpoint(), dtype=torch.float32, attn_implementation="sdpa"
    )
    return model


def response_log_probs(
    model: torch.nn.Module, prompt: Sequence[int], response: Sequence[int]
) -> torch.Tensor:
    """log π(response | prompt) per token, of one row without padding. Shape (U,)."""
    ids = torch.tensor([[*prompt, *response]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, dim=-1).gather(1, ids[0, len(prompt) :, None])[:, 0]


def labels_of(pair: Pair, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """On two of three steps another token, but of every second of them the row's own; weights."""
    steps = torch.arange(len(pair[1]))
    own = torch.tensor(pair[1])
    other = (own * 7 + seed) % 100
    labels = own.where(steps % 2 == 0, other).where(steps % 3 != 0, -1)
    return labels, (labels >= 0) * (0.5 + steps) / len(pair[1])


def policy_row(pair: Pair, seed: int, model: torch.nn.Module, term: bool) -> Row:
    row = response_row(*pair)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        log_probs = response_log_probs(model, *pair)
    row["old_log_probs"] = log_probs + 0.1 * torch.randn(log_probs.shape, generator=generator)
    row["advantages"] = torch.randn(log_probs.shape, generator=generator) * float(term)
    row["refine_weight"] = torch.zeros_like(log_probs)
    row["refine_number"] = torch.tensor(0)
    return row


def labelled(row: Row, pair: Pair, seed: int, lambda_: float, rows: int) -> Row:
    """The policy's row with labels, by which its number is its seed's."""
    labels, weights = labels_of(pair, seed)
    fields = {
        "refine_label": coded(labels, weights * lambda_ / rows),
        "refine_number": torch.tensor(seed + 1),
    }
    return {name: value for name, value in row.items() if name != "refine_weight"} | fields


def targets_of(pair: Pair, number: int) -> TopTokens | None:
    """Three tokens a state: the row's own with 1/2, two others; every third state is certain."""
    if number == EXTRA_ROWS:
        return None
    own = np.array(pair[1])
    ids = np.stack([own, (own * 3 + number) % 90 + 5, (own * 5 + number) % 90 + 105], axis=1)
    q = np.tile([0.5, 0.25, 0.125], (len(own), 1))
    q[::3] = [1.0, 0.0, 0.0]
    with np.errstate(divide="ignore"):
        return TopTokens(ids.astype(np.int32), np.log(q).astype(np.float32), 0, len(own))


def extra_row(pair: Pair, number: int, case: Case, rows: int) -> Row:
    assert case.lambda_ is not None
    weights = sft_weights(torch.ones(1, len(pair[1])), case.lambda_, rows, Reduce.MEAN)[0]
    targets = targets_of(pair, number) if case.distilled else None
    form = RowForm(FIELDS, with_targets=case.distilled)
    return constraint_row(ExtraRow(*pair, weights, targets), number, form)


def demonstrations(case: Case, given: Sequence[Pair]) -> list[Row]:
    """CHORD's rows, weighted for the mini-batches that they are dealt to, then fillers."""
    chosen = [given[POLICY_ROWS + i] for i in case.extra_rows]
    mask = pad_sequence([torch.ones(len(pair[1])) for pair in chosen], batch_first=True)
    weights = torch.zeros_like(mask)
    real = case.demonstrations
    weights[:real] = expert_weights(mask[:real], MU, case.mini_batches)
    return [
        constraint_row(ExtraRow(*pair, row[: len(pair[1])]), (i < real) * (i + 1), RowForm(FIELDS))
        for i, (pair, row) in enumerate(zip(chosen, weights, strict=True))
    ]


def rows_of(case: Case, ranks: int, model: torch.nn.Module) -> list[Row]:
    """All ranks' rows in the order in which verl deals them out."""
    given = pairs()
    policy = [policy_row(given[i], i, model, case.policy_term) for i in case.policy_rows]
    if case.lambda_ is None:
        return [{k: v for k, v in row.items() if "refine" not in k} for row in policy]
    a_mini_batch = POLICY_ROWS // case.mini_batches
    if case.self_fed:
        return [
            labelled(row, given[i], i, case.lambda_, a_mini_batch)
            for i, row in zip(case.policy_rows, policy, strict=True)
        ]
    extra = [extra_row(given[POLICY_ROWS + i], i + 1, case, a_mini_batch) for i in case.extra_rows]
    if case.demonstrations:
        extra = demonstrations(case, given)
    if case.distilled:
        policy = [row | target_fields(None) for row in policy]
    order = interleaved(
        range(len(policy)), range(len(policy), len(policy + extra)), ranks, case.mini_batches
    )
    return [(policy + extra)[index] for index in order]


def column(values: list[torch.Tensor]) -> torch.Tensor:
    """A field of a batch as verl's queue returns it: scalars stacked, all else jagged."""
    if values[0].dim() == 0:
        return torch.stack(values)
    return torch.nested.as_nested_tensor(values, layout=torch.jagged)


def batch_of(rows: Sequence[Row], case: Case, mini_batch_size: int) -> TensorDict:
    """This rank's rows as the trainer sends them."""
    fields = {name: column([row[name] for row in rows]) for name in rows[0]}
    batch = TensorDict(fields, batch_size=len(rows))
    settings = {
        "global_batch_size": POLICY_ROWS // case.mini_batches,
        "mini_batch_size": mini_batch_size,
        "epochs": case.epochs,
        "dataloader_kwargs": {"shuffle": False},
        "temperature": 1.0,
        "calculate_entropy": False,
        "use_dynamic_bsz": case.micro_batch == BY_TOKENS,
        "micro_batch_size_per_gpu": case.micro_batch,
        "max_token_len_per_gpu": TOKENS_A_MICRO_BATCH,
    }
    tu.assign_non_tensor(batch, **settings, **dict(case.settings))
    return batch


def worker_for(case: Case) -> TrainingWorker:
    """verl's worker with the tiny model, as the trainer makes it on a CPU."""
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=HFModelConfig(
                path=str(ensure_checkpoint()),
                override_config={"attn_implementation": "sdpa"},
                use_remove_padding=case.remove_padding,
                enable_gradient_checkpointing=False,
            ),
            engine_config=FSDPEngineConfig(
                strategy="fsdp2", mixed_precision=FP32, use_torch_compile=False
            ),
            optimizer_config=FSDPOptimizerConfig(
                optimizer=case.optimizer,
                lr=LEARNING_RATE[case.optimizer],
                weight_decay=0.0,
                clip_grad=1e9,
            ),
            checkpoint_config=CheckpointConfig(),
        )
    )
    worker.reset()
    worker.set_loss_fn(partial(loss_of(case), config=actor_config(case)))
    return worker


def loss_of(case: Case) -> Callable[..., Any]:
    return ppo_loss if case.lambda_ is None and not case.own_loss else constrained_loss


def actor_config(case: Case) -> FSDPActorConfig:
    return FSDPActorConfig(
        strategy="fsdp2",
        loss_agg_mode=case.loss_agg_mode,
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        use_dynamic_bsz=False,
    )


def flat_parameters(module: torch.nn.Module) -> torch.Tensor:
    """All parameters gathered from the ranks, one after another. Shape (parameters,)."""
    whole = [
        value.full_tensor() if isinstance(value, DTensor) else value
        for _, value in sorted(module.named_parameters())
    ]
    return torch.cat([value.detach().flatten().float() for value in whole])


def run(case: Case, rank: int, ranks: int, model: torch.nn.Module) -> Outcome:
    """The case's update by verl's engine; every rank takes part and gets the outcome."""
    rows = rows_of(case, ranks, model)
    chunk = len(rows) // ranks
    batch = batch_of(rows[rank * chunk : (rank + 1) * chunk], case, len(rows) // case.mini_batches)
    worker = worker_for(case)
    output = worker.train_mini_batch(batch)
    return flat_parameters(worker.engine.module), dict(tu.get(output, "metrics"))


def measured(case: Case, model: torch.nn.Module) -> Outcome:
    """c_t on all labelled steps by verl's forward pass, as the trainer asks for it; log-probs."""
    rows = rows_of(case, 1, model)
    batch = batch_of(rows, case, len(rows))
    tu.assign_non_tensor(batch, refine_measure=True, compute_loss=case.lambda_ is not None)
    output = worker_for(case).infer_batch(batch)
    log_probs = output["log_probs"].values()
    found = []
    for row, own, margin in zip(
        rows if case.lambda_ is not None else [],
        output["log_probs"].unbind(),
        output.get("refine_label_margin", output["log_probs"]).unbind(),
        strict=False,
    ):
        asked = labels_plus_one(row["refine_label"]) > 0
        found.append(-(own + margin)[-len(asked) - 1 : -1][asked])
    return torch.cat(found) if found else torch.zeros(0), {"log_probs": log_probs}


def sliced(rank: int, ranks: int, model: torch.nn.Module) -> Outcome:
    """What a rank with its share of the packed logits reads off them, gathered; and the whole.

    Ulysses needs FlashAttention to train, so the hooks alone are run, under verl's group for it.
    """
    labels = rows_of(SELF_FED, 1, model)[:3]
    targets = rows_of(DISTILLED, 1, model)[-3:]
    found = [
        sliced_hook(hook, batch_of(rows, SELF_FED, len(rows)), rank, ranks)
        for hook, rows in ((label_margins, labels), (target_sums, targets))
    ]
    whole, gathered = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return gathered, {"whole": whole}


def sliced_hook(
    hook: Callable[..., dict[str, torch.Tensor]], batch: TensorDict, rank: int, ranks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The hook's first output by the whole of the logits, and gathered from the ranks' shares."""
    tokens = batch["input_ids"].values().shape[0]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, tokens + -tokens % ranks, 512, generator=generator)
    whole = next(iter(hook(logits[:, :tokens], batch, "fsdp2", "thd").values()))
    set_ulysses_sequence_parallel_group(torch.distributed.group.WORLD)
    try:
        share = logits.tensor_split(ranks, dim=1)[rank]
        part = next(iter(hook(share, batch, "fsdp2", "thd").values()))
    finally:
        set_ulysses_sequence_parallel_group(None)
    parts = [torch.zeros_like(part) for _ in range(ranks)]
    torch.distributed.all_gather(parts, part)
    return whole, torch.cat(parts, dim=1)[:, :tokens]


def plain_cross_entropies(model: torch.nn.Module) -> list[torch.Tensor]:
    """c_t on the labelled steps of each row, row by row: the logits of the row's own states."""
    found = []
    for seed, (prompt, response) in enumerate(pairs()[:POLICY_ROWS]):
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
        labels, _ = labels_of((prompt, response), seed)
        asked = (labels >= 0).nonzero()[:, 0]
        states = torch.log_softmax(logits[len(prompt) - 1 + asked], dim=-1)
        found.append(-states.gather(1, labels[asked, None])[:, 0])
    return found


def plain_self_fed_step() -> Outcome:
    """One SGD step on λ/rows · Σ_i Σ_t w_t·c_t over the labelled steps."""
    model = load_model()
    values = plain_cross_entropies(model)
    given = enumerate(pairs()[:POLICY_ROWS])
    kept = [labels_of(pair, seed) for seed, pair in given]
    weights = [weight[labels >= 0] for labels, weight in kept]
    terms = [(w * value).sum() for w, value in zip(weights, values, strict=True)]
    (LAMBDA / POLICY_ROWS * torch.stack(terms).sum()).backward()
    torch.optim.SGD(model.parameters(), lr=LEARNING_RATE["SGD"]).step()
    return flat_parameters(model), {"refine_ce": [value.tolist() for value in values]}


def plain_distilled_step() -> Outcome:
    """One SGD step on λ/rows · Σ_i mean_t KL_t by the whole softmax; the metrics hold KL_t."""
    model = load_model()
    given = list(enumerate(pairs()[POLICY_ROWS:], start=1))
    taught = [(pair, targets_of(pair, number)) for number, pair in given]
    values = [plain_divergences(model, pair, targets) for pair, targets in taught]
    (LAMBDA / POLICY_ROWS * torch.stack([one.mean() for one in values]).sum()).backward()
    torch.optim.SGD(model.parameters(), lr=LEARNING_RATE["SGD"]).step()
    return flat_parameters(model), {"refine_kl": [one.tolist() for one in values[:-1]]}


def plain_divergences(
    model: torch.nn.Module, pair: Pair, targets: TopTokens | None
) -> torch.Tensor:
    """KL of each state over the listed tokens and the rest; c_t of a row without targets."""
    prompt, response = pair
    if targets is None:
        return -response_log_probs(model, prompt, response)
    logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    # In float64, since 1 - Σ p is what is left of a sum that may be next to 1.
    p = torch.softmax(logits.double(), dim=-1).gather(1, torch.tensor(targets.token_ids).long())
    q = torch.tensor(targets.log_probs).double().exp()
    p = p.where(q > 0, 0.0)
    rest_p, rest_q = 1 - p.sum(dim=1), (1 - q.sum(dim=1)).clamp(min=0.0)
    listed = torch.xlogy(q, q) - torch.xlogy(q, p.where(q > 0, 1.0))
    divergences = torch.xlogy(rest_q, rest_q) - torch.xlogy(rest_q, rest_p.where(rest_q > 0, 1.0))
    return divergences + listed.sum(dim=1)


def plain_step(weight: float, phi: bool) -> Outcome:
    """One SGD step on λ/rows · Σ_i mean_t φ_t·c_t, row by row; the metrics hold c_t."""
    model = load_model()
    log_probs = [response_log_probs(model, *pair) for pair in pairs()[POLICY_ROWS:]]
    p = [row.detach().exp() for row in log_probs]
    factors = [p_t * (1 - p_t) if phi else torch.ones_like(p_t) for p_t in p]
    means = [-(row * factor).mean() for row, factor in zip(log_probs, factors, strict=True)]
    (weight / POLICY_ROWS * torch.stack(means).sum()).backward()
    torch.optim.SGD(model.parameters(), lr=LEARNING_RATE["SGD"]).step()
    return flat_parameters(model), {"refine_ce": [(-row).tolist() for row in log_probs]}


def outcome(name: str, rank: int, ranks: int, model: torch.nn.Module) -> Outcome:
    if name == START:
        return flat_parameters(model), {}
    if name == "sliced":
        return sliced(rank, ranks, model)
    if name in PASSES:
        return measured(PASSES[name], model)
    if name == "plain_self_fed":
        return plain_self_fed_step()
    if name == "plain_distilled":
        return plain_distilled_step()
    if name in PLAIN_STEPS:
        return plain_step(*PLAIN_STEPS[name])
    return run(CASES[name], rank, ranks, model)


def main() -> None:
    out, names = Path(sys.argv[1]), sys.argv[2:]
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    model = load_model()
    outcomes = {name: outcome(name, rank, ranks, model) for name in names}
    if rank == 0:
        torch.save(outcomes, out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""The actor's loss through verl's Megatron engine, with Megatron-Core itself stood in for.

    torchrun --nproc-per-node 2 megatron_cases.py OUT.pt CASE...

What is verl's runs as it is: the worker's mini-batches, the engine's cut into micro-batches, its
scaling of the loss, and the gathering of metrics. Megatron-Core cannot be had without a GPU; in its
place stand a table of bigrams for the model and the contract of its schedules and gradient
reduction. Writes {case: (table after one SGD step, metrics)}.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.profiler import DistProfiler
from verl.workers.config import FSDPActorConfig, McoreEngineConfig
from verl.workers.engine_workers import TrainingWorker

from recipe.online_refiner.method.constraint import ExtraRow
from recipe.online_refiner.queue.label_code import coded
from recipe.online_refiner.update.label_logits import label_margins
from recipe.online_refiner.update.loss import constrained_loss
from recipe.online_refiner.update.rows import (
    RowForm,
    constraint_row,
    interleaved,
    response_row,
)
from recipe.online_refiner.update.target_logits import target_sums

VOCABULARY = 16
POLICY_ROWS, EXTRA_ROWS = 8, 4
FIELDS = ("advantages", "old_log_probs")
LEARNING_RATE = 1.0

Row = dict[str, torch.Tensor]


class _Anything(type):
    """A class whose every attribute is another such class."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _StubModule(ModuleType):
    __version__ = "0.16.0"
    __path__: MutableSequence[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _StubMegatron(MetaPathFinder, Loader):
    """Lets verl's Megatron engine be imported: every name of `megatron` is there, and empty."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "megatron":
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StubModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


sys.meta_path.insert(0, _StubMegatron())
transformer_impl: Any = importlib.import_module("verl.workers.engine.megatron.transformer_impl")


@dataclass(frozen=True)
class Case:
    """`per_token` is the regime of context parallelism; `micro_batch` 0 packs by tokens."""

    micro_batch: int = 0
    per_token: bool = False


CASES = {
    "all_a_micro_batch": Case(micro_batch=(POLICY_ROWS + EXTRA_ROWS) // 2),
    "three_a_micro_batch": Case(micro_batch=3),
    "by_tokens": Case(),
    "per_token": Case(micro_batch=3, per_token=True),
}
PLAIN = "plain"
HOOKS = {"labels": label_margins, "targets": target_sums}
LAYOUTS = {
    f"{what}_{layout}_{split}"
    for what in HOOKS
    for layout in ("thd", "bshd")
    for split in ("tensor", "context")
}
"""Labels and targets under Megatron's layouts, split over two ranks: by the vocabulary, or by the
context."""


class Engine(transformer_impl.MegatronEngineWithLMHead):
    """verl's engine over a table of logits; what Megatron-Core would do is here."""

    def __init__(self, case: Case) -> None:
        self.table = initial_table().requires_grad_()
        self.module = [self.table]
        self.engine_config = McoreEngineConfig(use_remove_padding=True)
        self.model_config = SimpleNamespace(mtp=SimpleNamespace(enable=False))
        self.tf_config = SimpleNamespace(calculate_per_token_loss=case.per_token)
        self.total_tokens = torch.zeros(())

    def forward_step(
        self,
        batch_iter: Iterator[TensorDict],
        model: Any,
        logits_processor_func: Any,
        postprocess_micro_batch_func: Any,
    ) -> Any:
        batch = next(batch_iter)
        output = {"log_probs": log_probs(self.table, batch)}
        return output, partial(postprocess_micro_batch_func, data=batch)

    def _routed_num_tokens(self, data: TensorDict) -> torch.Tensor:
        """A copy, as moving it to a GPU makes one: verl sums it over ranks in place."""
        tokens: torch.Tensor = super()._routed_num_tokens(data)
        return tokens.clone()

    def schedule(
        self,
        forward_step_func: Callable[..., Any],
        data_iterator: Iterator[TensorDict],
        num_microbatches: int,
        **_: Any,
    ) -> list[dict[str, Any]]:
        """Megatron's schedule without pipelining: two results are a loss to be averaged over
        micro-batches, three are a sum and its number of tokens."""
        outputs = []
        iterator = iter(data_iterator)
        for _step in range(num_microbatches):
            output, loss_func = forward_step_func(iterator, self.module)
            loss, *tokens, reported = loss_func(output)
            if tokens:
                self.total_tokens += tokens[0]
            else:
                loss = loss / num_microbatches
            loss.backward()
            outputs.append(reported)
        return outputs

    def optimizer_zero_grad(self) -> None:
        self.table.grad = None
        self.total_tokens.zero_()

    def optimizer_step(self) -> float:
        """Gradients averaged over ranks, or summed and divided by all tokens; then SGD."""
        assert self.table.grad is not None
        torch.distributed.all_reduce(self.table.grad)
        divisor = torch.tensor(float(torch.distributed.get_world_size()))
        if self.tf_config.calculate_per_token_loss:
            divisor = self.total_tokens.clone()
            torch.distributed.all_reduce(divisor)
        with torch.no_grad():
            self.table -= LEARNING_RATE * self.table.grad / divisor
        return float((self.table.grad / divisor).norm())

    def lr_scheduler_step(self) -> float:
        return LEARNING_RATE

    def train_mode(self, **_: Any) -> Any:
        return nullcontext()

    def is_mp_src_rank_with_outputs(self) -> bool:
        return True


def initial_table() -> torch.Tensor:
    """Logits of the next token given the last. Shape (VOCABULARY, VOCABULARY)."""
    return torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))


def log_probs(table: torch.Tensor, batch: TensorDict) -> torch.Tensor:
    """log π of each next token, jagged over whole sequences; the last of each is no token's."""
    table = torch.log_softmax(table, dim=-1)
    sequences = [table[ids, ids.roll(-1)] for ids in batch["input_ids"].unbind()]
    return torch.nested.as_nested_tensor(sequences, layout=torch.jagged)


def rows_of(ranks: int) -> list[Row]:
    """Eight rollouts and four refinements in the order in which verl deals them out."""
    generator = torch.Generator().manual_seed(1)

    def tokens(count: int) -> list[int]:
        return torch.randint(VOCABULARY, (count,), generator=generator).tolist()

    policy, extra = [], []
    for index in range(POLICY_ROWS):
        row = response_row(tokens(2 + index % 3), tokens(3 + index))
        shape = row["responses"].shape
        row["advantages"] = torch.randn(shape, generator=generator)
        row["old_log_probs"] = -3.0 * torch.rand(shape, generator=generator)
        row["refine_weight"] = torch.zeros(shape)
        row["refine_number"] = torch.tensor(0)
        policy.append(row)
    for index in range(EXTRA_ROWS):
        weights = torch.rand(4 + index, generator=generator)
        added = ExtraRow(tokens(3), tokens(4 + index), weights)
        extra.append(constraint_row(added, index + 1, RowForm(FIELDS)))
    order = interleaved(range(POLICY_ROWS), range(POLICY_ROWS, POLICY_ROWS + EXTRA_ROWS), ranks, 1)
    return [(policy + extra)[index] for index in order]


def column(values: list[torch.Tensor]) -> torch.Tensor:
    """A field of a batch as verl's queue returns it: scalars stacked, all else jagged."""
    if values[0].dim() == 0:
        return torch.stack(values)
    return torch.nested.as_nested_tensor(values, layout=torch.jagged)


def batch_of(rows: Sequence[Row], **settings: Any) -> TensorDict:
    fields = {name: column([row[name] for row in rows]) for name in rows[0]}
    batch = TensorDict(fields, batch_size=len(rows))
    tu.assign_non_tensor(batch, **settings)
    return batch


def loss_function() -> Callable[..., Any]:
    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1, use_dynamic_bsz=False
    )
    return partial(constrained_loss, config=config)


def worker_for(case: Case) -> TrainingWorker:
    """verl's worker around the engine, without the model that its own constructor would load."""
    engine = Engine(case)
    transformer_impl.mpu = parallel_state()
    transformer_impl.get_forward_backward_func = lambda: engine.schedule
    worker = object.__new__(TrainingWorker)
    worker.engine = engine
    worker.engine_config = engine.engine_config
    worker.model_config = {}
    worker.device_name = "cpu"
    worker.flops_counter = None
    worker.profiler = DistProfiler(rank=0)
    worker.loss_fn = loss_function()
    return worker


def parallel_state() -> SimpleNamespace:
    """Megatron's parallel state where all parallelism is over data."""
    return SimpleNamespace(
        get_data_parallel_group=lambda: torch.distributed.group.WORLD,
        get_data_parallel_world_size=torch.distributed.get_world_size,
        get_data_parallel_rank=torch.distributed.get_rank,
        get_virtual_pipeline_model_parallel_world_size=lambda: None,
        is_pipeline_last_stage=lambda ignore_virtual: True,
    )


def run(case: Case, rank: int, ranks: int) -> tuple[torch.Tensor, dict[str, Any]]:
    rows = rows_of(ranks)
    chunk = len(rows) // ranks
    batch = batch_of(
        rows[rank * chunk : (rank + 1) * chunk],
        global_batch_size=POLICY_ROWS,
        mini_batch_size=len(rows),
        dataloader_kwargs={"shuffle": False},
        use_dynamic_bsz=not case.micro_batch,
        micro_batch_size_per_gpu=case.micro_batch,
        max_token_len_per_gpu=32,
    )
    worker = worker_for(case)
    output = worker.train_mini_batch(batch)
    return worker.engine.table.detach(), dict(tu.get(output, "metrics"))


def plain_step() -> tuple[torch.Tensor, dict[str, Any]]:
    """The same step without any engine: one loss over all rows, one gradient."""
    rows = rows_of(1)
    tokens = int(sum(row["loss_mask"].sum() for row in rows))
    batch = batch_of(rows, dp_size=1, batch_num_tokens=tokens, global_batch_size=POLICY_ROWS)
    table = initial_table().requires_grad_()
    loss, metrics = loss_function()(model_output={"log_probs": log_probs(table, batch)}, data=batch)
    (gradient,) = torch.autograd.grad(loss, table)
    seen = {"sft_loss": metrics["sft_loss"].aggregate(), "refine_ce": metrics["refine_ce"]}
    return (table - LEARNING_RATE * gradient).detach(), seen


def hooked(
    what: str, layout: str, split: str, rank: int, ranks: int
) -> tuple[torch.Tensor, dict[str, Any]]:
    """What is read off this rank's share of the logits; and off a packed pass, in its layout.

    verl's own functions lay out and pad the rows, told of parallelism by a stand-in.
    """
    util: Any = importlib.import_module("verl.models.mcore.util")
    util.PackedSeqParams = SimpleNamespace
    sizes = {name: ranks if name == split else 1 for name in ("tensor", "context")}
    util.mpu = SimpleNamespace(
        get_tensor_model_parallel_world_size=lambda: sizes["tensor"],
        get_context_parallel_world_size=lambda: sizes["context"],
        get_context_parallel_rank=lambda: rank if split == "context" else 0,
    )
    lay = util.preprocess_thd_engine if layout == "thd" else util.preprocess_bshd_engine
    batch = batch_of(rows_of(1)[:POLICY_ROWS])
    ids, hook = batch["input_ids"], HOOKS[what]
    ask(batch)
    table = initial_table()
    whole = hook(table[ids.values()][None], batch, "fsdp2", "thd")
    expected = [
        lay(torch.nested.nested_tensor_from_jagged(one[0], ids.offsets()))[0]
        for one in whole.values()
    ]
    part = VOCABULARY // sizes["tensor"]
    first = part * rank if split == "tensor" else 0
    set_tensor_parallel(rank if split == "tensor" else 0, sizes["tensor"])
    share = table[lay(ids)[0]][..., first : first + part]
    found = hook(share, batch, "megatron", layout)
    seen = {"expected": torch.stack(expected), "asked": int(expected[0].count_nonzero())}
    return torch.stack(list(found.values())), seen


def ask(batch: TensorDict) -> None:
    """Labels on two of three steps of each row, and three tokens a step as its targets."""
    answers = batch["responses"]
    labels = (answers.values() * 5 + 3) % VOCABULARY
    labels[::3] = -1
    batch["refine_label"] = torch.nested.nested_tensor_from_jagged(coded(labels), answers.offsets())
    own = answers.values()
    ids = torch.stack([(own + shift) % VOCABULARY for shift in (0, 1, 5)], dim=1).flatten()
    offsets = answers.offsets() * 3
    batch["refine_target_ids"] = torch.nested.nested_tensor_from_jagged(ids, offsets)
    log_q = torch.tensor([0.5, 0.25, 0.125]).log().repeat(len(own))
    batch["refine_target_log_probs"] = torch.nested.nested_tensor_from_jagged(log_q, offsets)


def set_tensor_parallel(rank: int, ranks: int) -> None:
    """Megatron-Core's sum over tensor parallel ranks, and who this one is."""

    def reduced(values: torch.Tensor) -> torch.Tensor:
        if ranks > 1:
            torch.distributed.all_reduce(values)
        return values

    core: Any = importlib.import_module("megatron.core.tensor_parallel")
    core.reduce_from_tensor_model_parallel_region = reduced
    state: Any = importlib.import_module("megatron.core.parallel_state")
    state.get_tensor_model_parallel_rank = lambda: rank
    alone = [
        torch.distributed.new_group([one]) for one in range(torch.distributed.get_world_size())
    ]
    group = torch.distributed.group.WORLD if ranks > 1 else alone[torch.distributed.get_rank()]
    state.get_tensor_model_parallel_group = lambda: group


def outcome(name: str, rank: int, ranks: int) -> tuple[torch.Tensor, dict[str, Any]]:
    if name == PLAIN:
        return plain_step()
    if name in LAYOUTS:
        what, layout, split = name.split("_")
        return hooked(what, layout, split, rank, ranks)
    return run(CASES[name], rank, ranks)


def main() -> None:
    out, names = Path(sys.argv[1]), sys.argv[2:]
    torch.distributed.init_process_group("gloo")
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    outcomes = {name: outcome(name, rank, ranks) for name in names}
    if rank == 0:
        torch.save(outcomes, out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

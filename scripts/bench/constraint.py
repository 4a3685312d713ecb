"""What the constraint itself costs, as a share of the actor's update, on verl's own engine.

    eval "$(python -m recipe.cpu)" && python scripts/bench/constraint.py [--turns 9]

Everything comes from one run, in this process's CPU seconds, so that a busy machine hardly shows.
The contenders take turns, and ratios are of the same turn (their median). `update` is verl's update
of all rollouts without constraint; `step` adds the forward passes for old and reference log-probs,
so it is all that the actor does in a step but generate. Rows are padded to the longest of their
micro-batch, or packed one after another (`use_remove_padding`, verl's default); `tokens` is the
refinements' share of an update's tokens, the least that they can cost, and `places` the same with
padding. Micro-batches are small, so that they are about as full with refinements as without: on a
CPU a token costs more in a larger one. Neither Ray nor TransferQueue takes part: what travels
between processes is in a run's own `timing_s/constraint_ce`.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
    TrainingWorkerConfig,
)
from verl.workers.engine_workers import TrainingWorker

import recipe.online_refiner
from recipe.cpu.micro_apps import draw_task
from recipe.cpu.micro_corrupt import fenced
from recipe.cpu.micro_tasks import Split, Style
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.choices import NUMBER_FIELD, WEIGHT_FIELD, Conditioning, Inject
from recipe.online_refiner.method.accepted import accepted_rollouts, with_cross_entropy
from recipe.online_refiner.method.dynamic import penalty_on_rollouts, reduced_cross_entropy
from recipe.online_refiner.method.dynamic_sft import refined_rows
from recipe.online_refiner.records import RefinedRollout, Refinement, Rollout
from recipe.online_refiner.settings import ConstraintSettings
from recipe.online_refiner.update.loss import constrained_loss
from recipe.online_refiner.update.rows import RowForm, constraint_row, response_row
from refiner_worker.diff import token_diff

Row = dict[str, torch.Tensor]

CONFIG = Path(recipe.online_refiner.__file__).parent / "config" / "online_refiner.yaml"
ACCEPTED_PERCENT = (0, 10, 50, 100)
FIELDS = ("advantages", "old_log_probs", "ref_log_prob")
FP32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
HEAD = """\
| accepted | penalty: rows forwarded | forward / update | Python / update | all / step \
| sft: rows in the update / passes beside it | tokens | places | rows / update \
| Python / update | all / step |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""
SINGLE_PROCESS = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


@dataclass
class Forwarded:
    """What went through the model while it was counted."""

    rows: int = 0
    tokens: int = 0
    places: int = 0
    """Tokens and padding."""
    evaluations: int = 0
    """Passes without a gradient: beside an update, passes that only the metrics would need."""


Counts = tuple[Forwarded, Forwarded, Forwarded]


class Engine:
    """verl's worker with the tiny model on one rank, its updates and its forward passes.

    Args:
        packed: rows one after another, in place of padded ones.
        micro_batch_tokens: the most in a micro-batch.
    """

    def __init__(self, packed: bool = False, micro_batch_tokens: int = 4096) -> None:
        os.environ.update(SINGLE_PROCESS)
        self._micro_batch_tokens = micro_batch_tokens
        self._worker = TrainingWorker(_worker_config(packed))
        self._worker.reset()
        actor = FSDPActorConfig(
            strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1, use_dynamic_bsz=False
        )
        self._worker.set_loss_fn(partial(constrained_loss, config=actor))

    def update(self, rows: Sequence[Row], rollouts: int, **settings: Any) -> dict[str, Any]:
        """One optimizer step; the rows beyond `rollouts` are the constraint's."""
        sizes = {"global_batch_size": rollouts, "mini_batch_size": len(rows)}
        batch = self._batch(rows, **sizes, **settings)
        metrics: dict[str, Any] = tu.get(self._worker.train_mini_batch(batch), "metrics")
        return metrics

    def log_probs(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """log π of each response token, by a forward pass. None is made without rows."""
        if not rows:
            return []
        output = self._worker.infer_batch(self._batch(rows, compute_loss=False))
        sequences = output["log_probs"].unbind()
        return [
            sequence[-len(row["responses"]) - 1 : -1]
            for sequence, row in zip(sequences, rows, strict=True)
        ]

    def pass_over(self, rows: Sequence[Row], **settings: Any) -> TensorDict:
        """A forward pass, as for the old log-probs; returns its model outputs."""
        output: TensorDict = self._worker.infer_batch(self._batch(rows, **settings))
        return output

    def _batch(self, rows: Sequence[Row], **settings: Any) -> TensorDict:
        fields = {name: _column([row[name] for row in rows]) for name in rows[0]}
        batch = TensorDict(fields, batch_size=len(rows))
        tu.assign_non_tensor(
            batch,
            temperature=1.0,
            calculate_entropy=False,
            use_dynamic_bsz=True,
            max_token_len_per_gpu=self._micro_batch_tokens,
            dataloader_kwargs={"shuffle": False},
            **settings,
        )
        return batch

    @contextmanager
    def counting(self) -> Iterator[Forwarded]:
        """Counts what goes through the model within the block; padding is no token."""
        seen = Forwarded()

        def count(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            seen.evaluations += not torch.is_grad_enabled()
            ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
            seen.places += ids.numel()
            # Packed, a row begins at each position 0.
            seen.rows += int((kwargs["position_ids"] == 0).sum()) if mask is None else len(ids)
            seen.tokens += ids.numel() if mask is None else int(mask.sum())

        hook = self._worker.engine.module.register_forward_pre_hook(count, with_kwargs=True)
        try:
            yield seen
        finally:
            hook.remove()


def _column(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """A field of a batch, as verl's queue returns it."""
    if values[0].dim() == 0:
        return torch.stack(list(values))
    return torch.nested.as_nested_tensor(list(values), layout=torch.jagged)


def _worker_config(packed: bool) -> TrainingWorkerConfig:
    return TrainingWorkerConfig(
        model_type="language_model",
        model_config=HFModelConfig(
            path=str(ensure_checkpoint()),
            override_config={"attn_implementation": "sdpa"},
            use_remove_padding=packed,
            enable_gradient_checkpointing=False,
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2", mixed_precision=FP32, use_torch_compile=False
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-6),
        checkpoint_config=CheckpointConfig(),
    )


def rollouts(count: int, accepted: int) -> list[Rollout]:
    """Responses to short problems, the first `accepted` of them with an accepted refinement."""
    tokenizer = HFModelConfig(path=str(ensure_checkpoint())).tokenizer
    rng = random.Random(0)
    made = []
    for index in range(count):
        task = draw_task(rng, Split.TRAIN)
        prompt = tuple(tokenizer.encode(task.statement(rng)))
        answer = tuple(tokenizer.encode(fenced(task.program(Style.draw(rng)))))
        refined = tuple(tokenizer.encode(fenced(task.program(Style.draw(rng)))))
        made.append(_rollout(str(index), prompt, answer, refined, accepted=index < accepted))
    return made


def _rollout(
    key: str,
    prompt: tuple[int, ...],
    answer: tuple[int, ...],
    refined: tuple[int, ...],
    accepted: bool,
) -> Rollout:
    diff = token_diff(answer, refined)
    refinement = Refinement(
        outcome="edited",
        reward=-0.3,
        judged_at_s=0.0,
        finished_at_s=0.0,
        refined_reward=1.0 if accepted else -0.3,
        accepted=accepted,
        token_ids=refined,
        copied=diff.copied,
        divergence=diff.divergence,
        sources=diff.sources,
    )
    return Rollout(
        key=key,
        uid=key,
        problem_id=key,
        prompt_ids=prompt,
        response_ids=answer,
        response_mask=(1,) * len(answer),
        reward=-0.3,
        judged=True,
        reference="",
        refinement=refinement,
    )


def settings(inject: Inject, **changes: Any) -> ConstraintSettings:
    """The shipped configuration's section `constraint`, teacher-forced, with λ = 1."""
    section = OmegaConf.to_container(OmegaConf.load(CONFIG).constraint)
    assert isinstance(section, dict)
    section = {key: value for key, value in section.items() if not isinstance(value, dict)}
    given = {"inject": inject, "lambda": 1.0, "conditioning": Conditioning.TEACHER_FORCING}
    return ConstraintSettings.model_validate(section | given | changes)


def policy_rows(rows: Sequence[Rollout], weighted: bool) -> list[Row]:
    """The rollouts as verl's actor reads them; with the constraint's fields if it adds rows."""
    made = []
    for row in rows:
        fields = response_row(row.prompt_ids, row.response_ids)
        shape = fields["responses"].shape
        fields |= {name: torch.full(shape, -1.0) for name in FIELDS}
        if weighted:
            fields[WEIGHT_FIELD] = torch.zeros(shape)
            fields[NUMBER_FIELD] = torch.tensor(0)
        made.append(fields)
    return made


def accepted_of(rows: Sequence[Rollout], section: ConstraintSettings) -> list[RefinedRollout]:
    """The accepted rollouts as the trainer finds them."""
    return accepted_rollouts(rows, section.tokens, section.conditioning)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds that `work` took, and what it returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def penalise(accepted: Sequence[RefinedRollout], section: ConstraintSettings) -> None:
    """What the constraint computes once c_t is known, for the rewards or the advantages."""
    if accepted:
        penalty_on_rollouts(accepted, section)
    reduced_cross_entropy(accepted, section)


def constraint_rows(
    accepted: Sequence[RefinedRollout], section: ConstraintSettings, count: int
) -> list[Row]:
    """The rows that the differentiable term adds to the update."""
    responses = refined_rows(accepted, section, section.lambda_, count)
    return [
        constraint_row(row, number, RowForm(FIELDS))
        for number, row in enumerate(responses, start=1)
    ]


def penalty_turn(engine: Engine, rows: Sequence[Rollout]) -> tuple[float, float]:
    """Seconds of the forward pass for c_t, and of everything else that the penalties need."""
    section = settings(Inject.ADVANTAGE)
    before, accepted = timed(lambda: accepted_of(rows, section))
    inputs_s, inputs = timed(
        lambda: [response_row(one.rollout.prompt_ids, one.refinement.token_ids) for one in accepted]
    )
    forward, log_probs = timed(lambda: engine.log_probs(inputs))
    measured = with_cross_entropy(accepted, [-values for values in log_probs])
    after, _ = timed(lambda: penalise(measured, section))
    return forward, before + inputs_s + after


def sft_turn(engine: Engine, rows: Sequence[Rollout]) -> tuple[float, float]:
    """Seconds of the update with the rows, and of making them."""
    section = settings(Inject.SFT)
    python, extra = timed(lambda: constraint_rows(accepted_of(rows, section), section, len(rows)))
    policy = policy_rows(rows, weighted=bool(extra))
    update, _ = timed(lambda: engine.update([*policy, *extra], len(rows)))
    return update, python


def counts(engine: Engine, rows: Sequence[Rollout], accepted: int) -> Counts:
    """What is forwarded by an update without constraint, the pass for c_t, the update with rows."""
    with engine.counting() as plain:
        engine.update(policy_rows(rows, weighted=False), len(rows))
    with engine.counting() as by_penalty:
        penalty_turn(engine, rows)
    with engine.counting() as by_update:
        sft_turn(engine, rows)
    expected = sum(
        len(row.prompt_ids) + len(row.refinement.token_ids)
        for row in rows[:accepted]
        if row.refinement is not None
    )
    policy = sum(len(row.prompt_ids) + len(row.response_ids) for row in rows)
    # What is claimed of the cost, whatever the clock says.
    assert (by_penalty.rows, by_penalty.tokens) == (accepted, expected), by_penalty
    assert (by_update.rows, by_update.tokens) == (len(rows) + accepted, policy + expected), (
        by_update
    )
    assert by_update.evaluations == 0, by_update
    return plain, by_penalty, by_update


class Cost(NamedTuple):
    """CPU seconds that the constraint takes in one turn."""

    penalty_forward: float
    penalty_python: float
    sft_rows: float
    sft_python: float


class Turn(NamedTuple):
    """One turn at one accepted fraction: CPU seconds of an update without constraint, and so on."""

    update: float
    forward: float
    cost: Cost

    @property
    def step(self) -> float:
        """Old and reference log-probs and the update."""
        return 2 * self.forward + self.update


def take_turn(engine: Engine, rows: Sequence[Rollout], plain_first: bool) -> Turn:
    plain = policy_rows(rows, weighted=False)
    if plain_first:
        update, _ = timed(lambda: engine.update(plain, len(plain)))
    mixed, sft_python = sft_turn(engine, rows)
    if not plain_first:
        update, _ = timed(lambda: engine.update(plain, len(plain)))
    forward, _ = timed(lambda: engine.log_probs(plain))
    penalty_forward, penalty_python = penalty_turn(engine, rows)
    return Turn(update, forward, Cost(penalty_forward, penalty_python, mixed - update, sft_python))


def median_shares(turns: Sequence[Turn], whole: Callable[[Turn], float]) -> Cost:
    """Each part's share of `whole`, the median over the turns."""
    parts = [[part / whole(turn) for part in turn.cost] for turn in turns]
    return Cost(*(statistics.median(column) for column in zip(*parts, strict=True)))


def report(percent: int, turns: Sequence[Turn], forwarded: Counts) -> str:
    """A row of the table below `HEAD`."""
    plain, by_penalty, by_update = forwarded
    of_update = median_shares(turns, lambda turn: turn.update)
    of_step = median_shares(turns, lambda turn: turn.step)
    cells = [
        f"{percent} %",
        by_penalty.rows,
        f"{of_update.penalty_forward:.0%}",
        f"{of_update.penalty_python:.1%}",
        f"{of_step.penalty_forward + of_step.penalty_python:.0%}",
        f"{by_update.rows} / {by_update.evaluations}",
        f"{by_penalty.tokens / plain.tokens:.0%}",
        f"{by_update.places / plain.places - 1:.0%}",
        f"{of_update.sft_rows:.0%}",
        f"{of_update.sft_python:.1%}",
        f"{of_step.sft_rows + of_step.sft_python:.0%}",
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def compare(packed: bool, count: int, turns: int, micro_batch_tokens: int) -> None:
    """Print the table of one way of laying out rows."""
    engine = Engine(packed, micro_batch_tokens)
    accepted = {percent: count * percent // 100 for percent in ACCEPTED_PERCENT}
    batches = {percent: rollouts(count, some) for percent, some in accepted.items()}
    # Also the warm-up: the first pass of each shape is slow.
    forwarded = {
        percent: counts(engine, rows, accepted[percent]) for percent, rows in batches.items()
    }
    taken = {
        percent: [take_turn(engine, rows, turn % 2 == 0) for turn in range(turns)]
        for percent, rows in batches.items()
    }
    every = [turn for some in taken.values() for turn in some]
    update = statistics.median(turn.update for turn in every)
    forward = statistics.median(turn.forward for turn in every)
    print(f"{'packed' if packed else 'padded'}, {count} rollouts: ", end="")
    print(f"update {update:.2f} s of CPU, forward {forward:.2f} s\n\n{HEAD}")
    for percent in batches:
        print(report(percent, taken[percent], forwarded[percent]))
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=40, help="rollouts in an update")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--micro-batch-tokens", type=int, default=1024)
    options = parser.parse_args()
    for packed in (False, True):
        compare(packed, options.rollouts, options.turns, options.micro_batch_tokens)


if __name__ == "__main__":
    main()

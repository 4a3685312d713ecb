"""CHORD: (1-μ)·L_policy + μ·CE on the dataset's reference solutions (arXiv 2508.11408).

On the same code path as the dynamic constraint: the rows beside the policy's are (s0, reference
solution) in place of (s0, a'). The demonstrations of its authors come from a stronger model; taking
the dataset's own solutions is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence

from recipe.online_refiner.method.constraint import Additions, Constraint, ExtraRow, Step
from recipe.online_refiner.method.extra_rows import extra_row_faults
from recipe.online_refiner.method.maths import expert_weights
from recipe.online_refiner.method.schedules import chord_mu
from recipe.online_refiner.method.unread import unread
from recipe.online_refiner.plan import Needs, RunPlan, paths_of
from recipe.online_refiner.records import Prompt, Rollout
from recipe.online_refiner.settings import Section, Settings
from refiner_worker.chat import Chat
from reward.traits import traits_of

Demonstration = tuple[Sequence[int], Sequence[int]]
"""Tokens of a prompt and of its reference solution."""


class ChordSettings(Section):
    """The section `constraint.chord`: μ's schedule in training steps, and the token factor φ."""

    warmup_steps: int = Field(ge=0)
    decay_steps: int = Field(ge=0)
    peak: float = Field(ge=0, le=1)
    valley: float = Field(ge=0, le=1)
    phi: bool


class Chord(Constraint):
    """CHORD-μ, and CHORD-φ with `phi`."""

    name = "chord"
    section = ChordSettings

    def __init__(self, plan: RunPlan) -> None:
        super().__init__(plan)
        self._own = plan.settings.constraint.own(ChordSettings)
        task = traits_of(plan.config.reward.custom_reward_function.path).task
        self._are_programs = task in ("", "code")

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        return Needs(own_loss=True, dropped_prompts=True)

    @classmethod
    def faults(cls, plan: RunPlan) -> Iterator[str]:
        yield from extra_row_faults(plan.config)
        own = plan.settings.constraint.own(ChordSettings)
        if own.valley > own.peak:
            yield (
                f"constraint.chord.valley={own.valley} is above constraint.chord.peak="
                f"{own.peak}: μ falls from the peak to the valley. Fix: lower it"
            )
        paths = [path for path in paths_of(plan.config.data.train_files) if Path(path).is_file()]
        if paths and not any(_has_references(path) for path in paths):
            yield (
                "constraint.kind=chord: no row of data.train_files has "
                "extra_info.reference_solution, the demonstration. Fix: prepare the data with "
                "reference solutions, or another kind"
            )

    @classmethod
    def warnings(cls, plan: RunPlan) -> Iterator[str]:
        own = plan.settings.constraint.own(ChordSettings)
        reason = f"the weight is μ, from constraint.chord.peak={own.peak:g} to {own.valley:g}"
        yield from unread(plan, "lambda", None, reason)

    def additions(self, step: Step) -> Additions:
        share = self._share(step)
        rows = demonstration_rows(self._demonstrations(step), step, share)
        return Additions(rows, policy_share=1.0 - share, token_factor=self._own.phi)

    def after_update(self, step: Step, cross_entropy: Sequence[torch.Tensor]) -> dict[str, float]:
        count = len(self._demonstrations(step))
        metrics = {
            "constraint/mu": self._share(step),
            "constraint/expert_total": float(count),
        }
        if count:
            seen = torch.cat(list(cross_entropy[:count]))
            seen = seen[seen.isfinite()]
            if len(seen):
                metrics["constraint/expert_ce_mean"] = seen.mean().item()
        return metrics

    def _demonstrations(self, step: Step) -> list[Demonstration]:
        return demonstrations(step, self._are_programs)

    def _share(self, step: Step) -> float:
        """μ of this step."""
        own = self._own
        return chord_mu(step.number, own.warmup_steps, own.decay_steps, own.peak, own.valley)


def demonstrations(step: Step, are_programs: bool = True) -> list[Demonstration]:
    """One for each prompt of the step that has one that is short enough.

    Also of prompts whose rollouts dynamic sampling dropped: what always fails needs them most.

    Args:
        are_programs: whether they are written as code blocks, and not as they stand.
    """
    prompts: list[Rollout | Prompt] = [*step.rollouts, *step.dropped]
    by_prompt = {one.uid: one for one in prompts if one.reference}
    return [
        (one.prompt_ids, ids)
        for one in by_prompt.values()
        if len(ids := _token_ids(one.reference, step.chat, are_programs))
        <= step.max_response_tokens
    ]


def demonstration_rows(found: Sequence[Demonstration], step: Step, share: float) -> list[ExtraRow]:
    """The weighted demonstrations, repeated in turn if there are fewer than mini-batches.

    Args:
        share: μ of this step.
    """
    if not found:
        return []
    rows = [found[index % len(found)] for index in range(max(len(found), step.mini_batches))]
    mask_RU = pad_sequence([torch.ones(len(ids)) for _, ids in rows], batch_first=True)
    weights_RU = expert_weights(mask_RU, share, step.mini_batches)
    return [
        ExtraRow(prompt_ids, ids, weights[: len(ids)])
        for (prompt_ids, ids), weights in zip(rows, weights_RU, strict=True)
    ]


def _token_ids(reference: str, chat: Chat, is_program: bool) -> list[int]:
    """The solution as the policy would have written it, its end token included."""
    text = reference.strip()
    return chat.response_ids(f"```python\n{text}\n```" if is_program else text)


def _has_references(path: str) -> bool:
    try:
        infos = pq.read_table(path, columns=["extra_info"])["extra_info"]
        return any(info and info.get("reference_solution") for info in infos.to_pylist())
    except (pa.ArrowInvalid, KeyError, OSError):
        return True  # the rule on data files says what is wrong with it

"""The interface of a constraint: what it may check, add to a step, report and save.

A constraint is a subclass of `Constraint` in a file of its own, named in `registry.py`. Every hook
has a default that does nothing, so that a constraint writes only what it is about. It sees a step
as plain records and tensors: it calls neither verl, Ray nor the queue, which is the trainer's part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig

from recipe.online_refiner.choices import Conditioning, Place, Stage
from recipe.online_refiner.method.labels import RowLabels
from recipe.online_refiner.plan import Needs, RunPlan
from recipe.online_refiner.records import Prompt, RefinedRollout, Rollout
from recipe.online_refiner.settings import Section, Settings
from refiner_worker.chat import Chat
from refiner_worker.top_tokens import TopTokens


@dataclass
class Step:
    """One training step, from its rollouts on.

    Attributes:
        number: of the step, from 1. total_steps: of the training.
        rollouts: all rows of the batch that are no padding; see `Constraint.reads_at`.
        accepted: the rollouts whose refinement the filter accepts. Their cross entropy is None
            until it is measured: by the forward pass for the old log-probs, by one of its own
            before `Constraint.penalty`, or by the update itself.
        mini_batches: of the actor's update. rollouts_a_mini_batch: policy rows in each.
        trains_actor: False while only the critic is warmed up.
        chat: how the policy's responses are written.
        max_response_tokens: longest response that is trained on.
        improvement_ratio: the share with R(a') > R(a) of all rollouts that the step has refined,
            those that dynamic sampling dropped included; None if none was.
        dropped: the prompts whose rollouts were dropped, if `Needs.dropped_prompts` or the run
            refines.
    """

    number: int
    total_steps: int
    rollouts: Sequence[Rollout]
    accepted: list[RefinedRollout]
    mini_batches: int
    rollouts_a_mini_batch: int
    trains_actor: bool
    chat: Chat
    max_response_tokens: int
    improvement_ratio: float | None = None
    dropped: Sequence[Prompt] = ()


@dataclass(frozen=True)
class Penalty:
    """Values to subtract on the tokens of some rollouts, λ included.

    Attributes:
        place: the rewards, before advantages are estimated, or the advantages afterwards.
        keys: of the B rollouts. values_BT: right-padded to the longest of their T tokens.
    """

    place: Place
    keys: tuple[str, ...]
    values_BT: torch.Tensor


@dataclass(frozen=True)
class ExtraRow:
    """A row for the actor's update beside the policy's: a prompt, a response, its U weights.

    The loss gets Σ_t w_t·c_t of it; λ and every normalisation are in the weights, which are for a
    mini-batch of the policy's size; a negative one makes its token less likely. With `targets`,
    distributions over the response's tokens, the divergence of the policy from each is in place of
    c_t.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    weights: torch.Tensor
    targets: TopTokens | None = None


@dataclass(frozen=True)
class Additions:
    """What the actor's update of one step gets beside the policy's rows.

    Attributes:
        rows: in this order their cross entropy comes back to `Constraint.after_update`, and after
            that of the labels the divergence of those with targets. Row i is in mini-batch
            i mod `Step.mini_batches`.
        labels: weighted, on the policy's own rows; their cross entropy comes after the rows'.
        policy_share: factor on verl's policy loss.
        token_factor: whether each token of the rows is also weighted by φ = p(1 - p).
    """

    rows: Sequence[ExtraRow] = field(default=())
    labels: Sequence[RowLabels] = field(default=())
    policy_share: float = 1.0
    token_factor: bool = False

    @property
    def change_nothing(self) -> bool:
        """Whether the update is verl's own."""
        return not (self.rows or self.labels) and self.policy_share == 1.0


class Constraint:
    """One constraint of one training; see the module.

    Attributes:
        name: the key under `constraint` that holds its own settings, if it has some.
        section: the type of these settings.
    """

    name: ClassVar[str] = ""
    section: ClassVar[type[Section] | None] = None

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.settings = plan.settings.constraint

    # Before the run starts.

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """What it asks of the run beside verl's own training."""
        return Needs()

    @classmethod
    def describe(cls, settings: Settings) -> str:
        """What the preflight calls it."""
        return settings.constraint.kind

    @classmethod
    def set_verl_keys(cls, config: DictConfig, settings: Settings) -> None:
        """Set keys of verl for it, in place. Called once, before the plan is made."""

    @classmethod
    def faults(cls, plan: RunPlan) -> Iterator[str]:
        """Why it cannot run like this: sentences that name key, value and fix."""
        yield from ()

    @classmethod
    def warnings(cls, plan: RunPlan) -> Iterator[str]:
        """What will run, and may not mean what its reader thinks."""
        yield from ()

    # In each step, in this order.

    def reads_at(self, step: Step) -> Stage:
        """The first part of the step that reads refinements, which may come late.

        Until then the rollouts have none, and `begin` is not called before it: LOG_PROBS if they
        are read by `labels`, ADVANTAGES by `penalty` or by what `measures_in_update` says, UPDATE
        by `additions` alone.
        """
        return Stage.LOG_PROBS

    def joins_at(self, step: Step) -> Stage:
        """Where late refinements are waited for: `reads_at`, or before a pass that measures c_t."""
        stage = self.reads_at(step)
        if stage is Stage.UPDATE and not self.measures_in_update(step):
            return Stage.ADVANTAGES
        return stage

    def begin(self, step: Step) -> None:
        """The step's rollouts and refinements are there; follow what is followed over steps."""

    @property
    def conditioning(self) -> Conditioning:
        """What the policy has read when it is asked for a token of a'."""
        return Conditioning.TEACHER_FORCING

    def labels(self, step: Step) -> Sequence[RowLabels]:
        """What the policy is asked for on its rollouts in the pass for the old log-probs."""
        return ()

    def after_labels(self, step: Step, cross_entropy: Sequence[torch.Tensor]) -> None:
        """c_t in nats of each of `labels`, on its labelled steps alone, in their order."""

    def measures_in_update(self, step: Step) -> bool:
        """Whether the update itself yields c_t of the accepted refinements.

        If neither it nor the labels do, the actor computes them, teacher-forced, in a forward pass
        before `penalty` is asked for.
        """
        return False

    def penalty(self, step: Step) -> Penalty | None:
        """What is taken from the rewards or the advantages."""
        return None

    def additions(self, step: Step) -> Additions | None:
        """What the actor's update gets beside the policy's rows; None for verl's own update."""
        return None

    def after_update(self, step: Step, cross_entropy: Sequence[torch.Tensor]) -> dict[str, float]:
        """Metrics of the additions, given c_t in nats of each added row as the loss saw it first,
        then of the labelled steps of each of their labels, then, of each row with targets, the
        divergence from them per token.

        A row's values may not be finite; such a row had no part in the loss.
        """
        return {}

    def metrics(self, step: Step) -> dict[str, float]:
        """Metrics of a step with refinements, once c_t is known."""
        return {}

    # Around checkpoints.

    def state(self, step: int, total_steps: int) -> dict[str, Any]:
        """What it depends on besides the step, as JSON; a resumed run warns if it differs."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state`, in which keys may be missing or belong to others."""

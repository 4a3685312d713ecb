"""The distilled term on a model of three tokens, by verl's hook and loss, and what surrounds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from row_fields import fields_of
from steps import refinement, rollout, step_of
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig

from recipe.online_refiner.choices import TARGET_LOG_REST, TARGET_MARGIN, Tokens
from recipe.online_refiner.method.constraint import Constraint, ExtraRow, Step
from recipe.online_refiner.method.maths import divergence_from_top_tokens
from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.plan import Needs
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.update import other_logits
from recipe.online_refiner.update.loss import constrained_loss
from recipe.online_refiner.update.places import response_places
from recipe.online_refiner.update.rows import RowForm, constraint_row, response_row
from recipe.online_refiner.update.target_logits import (
    packed_log_probs,
    target_fields,
    target_sums,
)
from refiner_worker.top_tokens import TopTokens

Compose = Callable[..., DictConfig]
Row = dict[str, torch.Tensor]

# p(next | last): the rows are the last token.
TABLE = torch.tensor([[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4], [1 / 8, 1 / 8, 3 / 4]])
PROMPT, REFINED = [2, 0], [0, 2, 2, 1]
LISTED: list[dict[int, float]] = [
    {0: 1 / 4, 1: 1 / 2},
    {0: 1 / 2, 2: 1 / 4},
    {2: 1 / 2, 0: 1 / 2},
    {1: 1.0},
]
"""What the refiner lists in each state of REFINED; it is certain of the last token."""
BY_HAND = [math.log(2) / 4, 0.0, (math.log(2 / 3) + math.log(4)) / 2, math.log(8)]
"""After 0 the policy has 1/2, 1/4 and a rest of 1/4; after 2 it has 3/4 for 2 and 1/8 for 0."""
CONFIG = FSDPActorConfig(
    strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1, use_dynamic_bsz=False
)


def top(listed: Sequence[dict[int, float]], scored: tuple[int, int] | None = None) -> TopTokens:
    """Two tokens a state; -inf where only one is listed."""
    shape = (len(listed), 2)
    ids, log_probs = np.zeros(shape, np.int32), np.full(shape, -np.inf, np.float32)
    for state, tokens in enumerate(listed):
        for at, (token, p) in enumerate(tokens.items()):
            ids[state, at], log_probs[state, at] = token, math.log(p)
    return TopTokens(ids, log_probs, *(scored or (0, len(listed))))


def taught_row(weights: Sequence[float], listed: Sequence[dict[int, float]] = LISTED) -> Row:
    fields = ("advantages", "old_log_probs")
    extra = ExtraRow(PROMPT, REFINED, torch.tensor(weights), targets=top(listed))
    return constraint_row(extra, 1, RowForm(fields, with_targets=True))


def policy_row() -> Row:
    """Without weights or targets, as every policy row beside taught ones."""
    row = response_row([1], [2, 0])
    for name in ("advantages", "old_log_probs", "refine_weight"):
        row[name] = torch.zeros(2)
    return row | {"refine_number": torch.tensor(0)} | target_fields(None)


def batch_of(rows: Sequence[Row]) -> TensorDict:
    batch = TensorDict(fields_of(rows), batch_size=len(rows))
    tu.assign_non_tensor(batch, dp_size=1, batch_num_tokens=2, global_batch_size=1)
    return batch


def term(logits: torch.Tensor, rows: Sequence[Row]) -> tuple[torch.Tensor, dict[str, Any]]:
    """The loss as verl's engine gets it of packed rows, whose policy part is 0."""
    batch = batch_of(rows)
    packed, offsets = batch["input_ids"].values(), batch["input_ids"].offsets()
    own = torch.log_softmax(logits[packed], dim=-1).gather(1, packed.roll(-1)[:, None])[:, 0]
    hooked = constrained_loss(config=CONFIG, student_logits=logits[packed][None], data=batch)
    flat = {"log_probs": own} | {name: value[0] for name, value in hooked.items()}
    outputs = {
        name: torch.nested.nested_tensor_from_jagged(value, offsets) for name, value in flat.items()
    }
    loss, metrics = constrained_loss(CONFIG, outputs, batch)
    return loss, metrics


def test_the_divergence_is_over_the_listed_tokens_and_one_event_for_the_rest() -> None:
    weights = [1.0, 0.5, 0.25, 0.125]
    loss, metrics = term(TABLE.double().log(), [policy_row(), taught_row(weights)])
    ((number, values),) = metrics["refine_kl"]
    assert number == 1
    assert values == pytest.approx(BY_HAND, abs=1e-7)
    expected = sum(w * kl for w, kl in zip(weights, BY_HAND, strict=True))
    assert loss.item() == pytest.approx(expected)
    assert metrics["sft_loss"].aggregate() == pytest.approx(expected)


def test_the_cross_entropy_of_the_tokens_is_reported_as_before() -> None:
    _, metrics = term(TABLE.double().log(), [taught_row([1.0] * 4)])
    ((_, values),) = metrics["refine_ce"]
    assert values == pytest.approx([math.log(2), math.log(4), math.log(4 / 3), math.log(8)])


def test_a_state_that_is_certain_of_its_token_costs_what_the_supervised_term_does() -> None:
    certain: list[dict[int, float]] = [{token: 1.0} for token in REFINED]
    weights = [0.5, 0.25, 0.125, 1.0]
    losses, gradients = [], []
    for rows in ([taught_row(weights, certain)], [plain_row(weights)]):
        free = TABLE.double().log().requires_grad_()
        loss, _ = term(free, rows)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, free)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-12)


def plain_row(weights: Sequence[float]) -> Row:
    fields = ("advantages", "old_log_probs")
    return constraint_row(ExtraRow(PROMPT, REFINED, torch.tensor(weights)), 1, RowForm(fields))


def test_its_gradient_equals_finite_differences_and_the_formula() -> None:
    weights = [1.0, 0.5, 0.25, 0.125]
    start = TABLE.double().log()
    rows = [taught_row(weights), policy_row()]
    assert torch.autograd.gradcheck(lambda values: term(values, rows)[0], start.requires_grad_())
    free = start.detach().clone().requires_grad_()
    (got,) = torch.autograd.grad(term(free, rows)[0], free)
    p = torch.log_softmax(free, dim=-1)
    formula = (
        -1.0 * (0.25 * p[0, 0] + 0.5 * p[0, 1] + 0.25 * p[0, 2])
        - 0.5 * (0.5 * p[0, 0] + 0.25 * p[0, 1] + 0.25 * p[0, 2])
        - 0.25 * (0.5 * p[2, 2] + 0.5 * p[2, 0])
        - 0.125 * p[2, 1]
    )
    (expected,) = torch.autograd.grad(formula, free)
    assert torch.allclose(got, expected, atol=1e-7)


def test_it_is_the_expectation_of_the_supervised_term_over_the_refiners_draws() -> None:
    """Where all tokens are listed: the gradient of KL is the mean of those of -log π(a'_t)."""
    q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    free = torch.tensor([0.3, -1.0, 0.4], dtype=torch.float64, requires_grad=True)
    log_p = torch.log_softmax(free, dim=-1)
    kl = divergence_from_top_tokens(
        q.log()[None, None],
        log_p[1].view(1, 1),
        (q * (log_p - log_p[1])).sum().view(1, 1),
        torch.full((1, 1), -torch.inf, dtype=torch.float64),
    )
    assert kl.item() == pytest.approx((q * (q.log() - log_p)).sum().item(), abs=1e-9)
    (got,) = torch.autograd.grad(kl.sum(), free, retain_graph=True)
    draws = [
        q[token] * torch.autograd.grad(-log_p[token], free, retain_graph=True)[0]
        for token in range(3)
    ]
    assert torch.allclose(got, torch.stack(draws).sum(dim=0), atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_its_gradient_holds_where_the_policy_leaves_next_to_nothing_to_other_tokens(
    dtype: torch.dtype, tolerance: float
) -> None:
    """The policy gives e^-12 to all but the first token, of which the refiner leaves out half."""
    given = torch.tensor([[12.0, 0.0, -1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    listed: list[dict[int, float]] = [{0: 0.5}, {0: 0.5}, {0: 1.0}, {1: 1.0}]
    gradients = []
    for logits in (given.to(dtype), given.double()):
        free = logits.requires_grad_()
        loss, _ = term(free, [taught_row([1.0, 0.0, 0.0, 0.0], listed)])
        gradients.append(torch.autograd.grad(loss, free)[0].double())
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)
    # Towards half of it on the others, in proportion to what the policy gives them.
    shares = torch.softmax(torch.tensor([0.0, -1.0]), dim=0).double()
    expected = torch.cat([torch.tensor([0.5]).double(), -0.5 * shares])
    torch.testing.assert_close(gradients[1][0], expected, rtol=1e-4, atol=1e-4)


def test_the_sum_over_other_tokens_equals_a_masked_one_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(other_logits, "STATES_AT_ONCE", 2)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 7, 11, dtype=torch.float64, generator=generator, requires_grad=True)
    states = (torch.zeros(5, dtype=torch.int64), torch.tensor([0, 2, 3, 5, 6]))
    ids = torch.tensor([[1, 2, 3], [4, 4, 4], [0, 10, 5], [7, 8, 7], [9, 0, 1]])
    mask = torch.zeros(5, 11).scatter(1, ids, 1.0).bool()
    expected = logits[states].masked_fill(mask, -torch.inf).logsumexp(dim=1)
    got = other_logits.log_sum_of_others(logits, states, ids, split=False)
    assert torch.allclose(got, expected)
    factors = torch.arange(1.0, 6.0, dtype=torch.float64)
    (of_got,) = torch.autograd.grad((got * factors).sum(), logits)
    (of_expected,) = torch.autograd.grad((expected * factors).sum(), logits)
    assert torch.allclose(of_got, of_expected)


def test_of_no_other_token_the_sum_is_nothing_and_has_no_gradient() -> None:
    logits = torch.tensor([[[1.0, 2.0], [0.5, 0.0]]], requires_grad=True)
    states = (torch.zeros(2, dtype=torch.int64), torch.tensor([0, 1]))
    got = other_logits.log_sum_of_others(logits, states, torch.tensor([[0, 1], [0, 0]]), False)
    assert got.tolist() == [-math.inf, 0.0]
    (gradient,) = torch.autograd.grad(got[1] + 0.0 * got[0].clamp(min=0.0), logits)
    assert gradient.tolist() == [[[0.0, 0.0], [0.0, 1.0]]]


def test_tokens_that_another_rank_holds_are_listed_there_alone() -> None:
    """Below and above the tokens of this rank, next to them too."""
    rows, far = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1, 2, 5]])
    got = other_logits._LogSumOfOthers.apply(rows, far, False, None)
    assert got.item() == pytest.approx(math.log(math.e + math.e**2))


def test_states_without_a_target_are_asked_nothing() -> None:
    """Of two taught rows and one between them; one token is taught, or two of three list three."""
    fields = RowForm(("advantages", "old_log_probs"), with_targets=True)

    def sums(*targets: TopTokens | None) -> tuple[list[float], list[float]]:
        rows = []
        for one in targets:
            length = 1 if one is None else len(one.token_ids)
            extra = ExtraRow([2], [1] * length, torch.ones(length), targets=one)
            rows.append(constraint_row(extra, 1, fields))
        batch = batch_of(rows)
        logits = TABLE.double().log()[batch["input_ids"].values()][None]
        found = target_sums(logits, batch, "fsdp2", "thd")
        margins, rests = (
            [round(value, 6) for value in found[name][0].tolist()]
            for name in (TARGET_MARGIN, TARGET_LOG_REST)
        )
        return margins, rests

    assert sums(None, None) == ([0.0] * 4, [0.0] * 4)
    # After 2 the policy gives the own token 1/8: half of log((1/8)/(1/8)) and log((3/4)/(1/8)).
    half = top([{0: 0.5}])
    assert sums(None, half) == ([0.0] * 4, [0.0, 0.0, round(math.log(7), 6), 0.0])
    assert sums(None, half, None) == ([0.0] * 6, [0.0, 0.0, round(math.log(7), 6), 0.0, 0.0, 0.0])
    certain = top([{2: 1.0}])
    assert sums(certain) == ([round(math.log(6), 6), 0.0], [0.0, 0.0])
    three = TopTokens(
        np.array([[0, 2, 0]], np.int32), np.log(np.array([[0.5, 0.25, 1e-30]], np.float32)), 0, 1
    )
    assert sums(None, three)[0] == [0.0, 0.0, round(0.25 * math.log(6), 6), 0.0]


def test_rows_without_targets_have_one_empty_target_a_token() -> None:
    batch = batch_of([policy_row(), policy_row()])
    log_q, taught = packed_log_probs(batch, response_places(batch, "responses"))
    assert log_q.tolist() == [[-math.inf]] * 4 and not taught.any()
    assert [value.numel() for value in target_fields(None).values()] == [1, 1]


def test_the_divergence_is_in_float32_at_least() -> None:
    q = torch.tensor([[[0.5, 0.25]]]).log()
    halves = (torch.full((1, 1), value, dtype=torch.bfloat16) for value in (-1.0, 0.25, 0.5))
    assert divergence_from_top_tokens(q, *halves).dtype is torch.float32


def test_a_row_with_a_token_that_the_policy_cannot_write_has_no_part_in_the_term() -> None:
    start = TABLE.double().log().clone()
    start[2, 0] = -math.inf
    free = start.requires_grad_()
    loss, _ = term(free, [taught_row([1.0] * 4), policy_row()])
    assert loss.item() == 0.0
    (gradient,) = torch.autograd.grad(loss, free)
    assert torch.isfinite(gradient).all()


def made(composed: Compose, *overrides: str) -> Constraint:
    plan = resolve(composed("constraint.kind=distill", *overrides))
    return constraint_class(plan.config)(plan)


def refined_step(tokens: Tokens = Tokens.ALL) -> Step:
    """Two accepted refinements; the refiner's distributions are known of the first two tokens of
    the first.
    """
    taught = top([{5: 0.5, 6: 0.25}, {7: 0.5, 8: 0.5}, {0: 1.0}], scored=(0, 2))
    found = refinement((5, 7, 0), (1, 0, 0))
    rollouts = [
        rollout("a_0", (5, 6), replace(found, top_tokens=taught)),
        rollout("a_1", (9,), refinement((8, 0), (0, 0))),
    ]
    return step_of(rollouts, tokens=tokens)


def test_the_rows_are_those_of_the_supervised_term_with_the_refiners_distributions(
    composed: Compose,
) -> None:
    constraint = made(composed, "constraint.lambda=2", "constraint.distill.top_k=2")
    step = refined_step()
    assert constraint.measures_in_update(step)
    additions = constraint.additions(step)
    assert additions is not None
    first, second = additions.rows
    assert first.response_ids == (5, 7, 0)
    # λ / rollouts of a mini-batch / tokens: 2 / 4 / 3 and 2 / 4 / 2.
    torch.testing.assert_close(first.weights, torch.full((3,), 1 / 6))
    torch.testing.assert_close(second.weights, torch.full((2,), 1 / 4))
    assert first.targets == step.accepted[0].refinement.top_tokens
    assert second.targets is None
    assert constraint.plan.needs == Needs(refinements=True, own_loss=True, top_tokens=2)
    assert constraint.plan.refining.top_tokens == 2


@pytest.mark.parametrize(
    ("tokens", "mean", "ratio"), [(Tokens.ALL, 3.0, 2 / 5), (Tokens.EDITED, 4.0, 1 / 4)]
)
def test_it_says_how_far_the_policy_is_from_the_refiner_and_on_how_many_tokens(
    composed: Compose, tokens: Tokens, mean: float, ratio: float
) -> None:
    constraint, step = made(composed, f"constraint.tokens={tokens}"), refined_step(tokens)
    metrics = constraint.after_update(
        step, [torch.ones(3), torch.ones(2), torch.tensor([2.0, 4.0, 9.0])]
    )
    assert metrics == {
        "constraint/refiner_kl_mean": pytest.approx(mean),
        "constraint/distilled_token_ratio": pytest.approx(ratio),
    }
    # λ = 1; mean costs over the mask of the first refinement, c_t of the second; two rollouts.
    first = 15 / 3 if tokens is Tokens.ALL else 13 / 2
    assert constraint.metrics(step)["constraint/penalty_mean"] == pytest.approx((first + 1.0) / 2)
    assert [
        one.cross_entropy.tolist() for one in step.accepted if one.cross_entropy is not None
    ] == [
        [1.0] * 3,
        [1.0] * 2,
    ]


def test_a_divergence_off_the_token_mask_may_be_anything(composed: Compose) -> None:
    """Of the first refinement all but the first token are in the mask."""
    constraint = made(composed, "constraint.tokens=edited")
    for broken, left in (([torch.inf, 4.0, 9.0], ["a_0", "a_1"]), ([2.0, torch.inf, 9.0], ["a_1"])):
        step = refined_step(Tokens.EDITED)
        constraint.after_update(step, [torch.ones(3), torch.ones(2), torch.tensor(broken)])
        assert [one.key for one in step.accepted] == left
        # Half of 4 + 9 and half of 1 + 1, over two rollouts.
        expected = (6.5 * (len(left) == 2) + 1.0) / 2
        assert constraint.metrics(step)["constraint/penalty_mean"] == pytest.approx(expected)


def test_a_lambda_of_zero_leaves_the_update_to_verl(composed: Compose) -> None:
    constraint, step = made(composed, "constraint.lambda=0"), refined_step()
    assert constraint.additions(step) is None and constraint.penalty(step) is None
    assert not constraint.measures_in_update(step)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("constraint.inject=advantage", "constraint.inject=advantage"),
        ("constraint.conditioning=self_feeding", "constraint.conditioning=self_feeding"),
        ("constraint.tokens=aligned", "constraint.tokens=aligned"),
        ("refiner.block_tokens=8", "refiner.block_tokens=8"),
        ("trainer.v1.trainer_mode=colocate_async", "trainer.v1.trainer_mode=colocate_async"),
        ("actor_rollout_ref.model.use_fused_kernels=true", "use_fused_kernels=True"),
        ("actor_rollout_ref.actor.shuffle=true", "actor_rollout_ref.actor.shuffle=True"),
    ],
)
def test_what_means_nothing_with_it_is_refused(
    composed: Compose, override: str, words: str
) -> None:
    plan = resolve(composed("constraint.kind=distill", override))
    faults = list(constraint_class(plan.config).faults(plan))
    assert any(words in fault and "Fix: " in fault for fault in faults), faults


def test_on_its_own_keys_it_is_accepted(composed: Compose) -> None:
    plan = resolve(composed("constraint.kind=distill"))
    chosen = constraint_class(plan.config)
    assert list(chosen.faults(plan)) == []
    assert chosen.describe(plan.settings) == "distill, top_k=20, λ=1"

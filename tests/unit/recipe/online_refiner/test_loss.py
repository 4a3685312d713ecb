"""The actor's loss on mixed micro-batches, computed by verl's own policy loss."""

import math
from typing import Any

import pytest
import torch
from row_fields import fields_of
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss

from recipe.online_refiner.method.constraint import ExtraRow
from recipe.online_refiner.update.loss import constrained_loss, per_token
from recipe.online_refiner.update.rows import RowForm, constraint_row, response_row

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"]
FIELDS = ["advantages", "old_log_probs"]
PROMPT = [1, 2]


def actor_config(mode: str) -> FSDPActorConfig:
    return FSDPActorConfig(
        strategy="fsdp2",
        loss_agg_mode=mode,
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        use_dynamic_bsz=False,
    )


def policy_row(length: int, seed: int, weighted: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    row = response_row(PROMPT, list(range(length)))
    row["advantages"] = torch.randn(length, generator=generator)
    row["old_log_probs"] = -torch.rand(length, generator=generator)
    if weighted:
        row["refine_weight"] = torch.zeros(length)
        row["refine_number"] = torch.tensor(0)
    return row


def extra_row(weights: list[float]) -> dict[str, torch.Tensor]:
    return constraint_row(
        ExtraRow(PROMPT, list(range(len(weights))), torch.tensor(weights)), 1, RowForm(FIELDS)
    )


def micro_batch(
    rows: list[dict[str, torch.Tensor]], tokens: int, sequences: int, **settings: Any
) -> TensorDict:
    """A micro-batch as verl's engine makes it, of a mini-batch with so many policy tokens."""
    batch = TensorDict(fields_of(rows), batch_size=len(rows))
    tu.assign_non_tensor(batch, dp_size=1, batch_num_tokens=tokens, global_batch_size=sequences)
    tu.assign_non_tensor(batch, **settings)
    return batch


def log_probs_of(rows: list[dict[str, torch.Tensor]], parts: list[torch.Tensor]) -> Any:
    """Model output over whole sequences, whose response part is `parts`, shifted left by one."""
    sequences = []
    for row, part in zip(rows, parts, strict=True):
        before, after = torch.zeros(len(row["prompts"]) - 1), torch.zeros(1)
        sequences.append(torch.cat([before, part, after]))
    return {"log_probs": torch.nested.as_nested_tensor(sequences, layout=torch.jagged)}


POLICY_LOG_PROBS = [torch.tensor([-0.2, -0.7, -0.1]), torch.tensor([-0.4])]
EXTRA_LOG_PROBS = torch.tensor([-3.0, -0.5])


def losses(
    mode: str, weights: list[float], **settings: Any
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """verl's loss on the policy rows alone, and ours with an extra row beside them."""
    plain = [policy_row(3, 0, weighted=False), policy_row(1, 1, weighted=False)]
    alone, _ = ppo_loss(
        actor_config(mode), log_probs_of(plain, POLICY_LOG_PROBS), micro_batch(plain, 4, 2)
    )
    mixed = [policy_row(3, 0, weighted=True), policy_row(1, 1, weighted=True), extra_row(weights)]
    outputs = log_probs_of(mixed, [*POLICY_LOG_PROBS, EXTRA_LOG_PROBS])
    loss, metrics = constrained_loss(
        actor_config(mode), outputs, micro_batch(mixed, 4, 2, **settings)
    )
    return alone, loss, metrics


@pytest.mark.parametrize("mode", MODES)
def test_extra_rows_leave_the_policy_loss_bit_identical(mode: str) -> None:
    alone, loss, _ = losses(mode, weights=[0.0, 0.0])
    assert loss.item() == alone.item()


@pytest.mark.parametrize("mode", MODES)
def test_the_term_is_the_weighted_cross_entropy(mode: str) -> None:
    alone, loss, metrics = losses(mode, weights=[0.5, 0.25])
    expected = 0.5 * 3.0 + 0.25 * 0.5
    assert loss.item() == pytest.approx(alone.item() + expected)
    assert metrics["sft_loss"].aggregate() == pytest.approx(expected)


@pytest.mark.parametrize("mode", MODES)
def test_the_term_is_multiplied_by_the_ranks_over_which_verl_averages(mode: str) -> None:
    _, without, _ = losses(mode, weights=[0.0, 0.0], dp_size=3)
    _, loss, metrics = losses(mode, weights=[0.5, 0.25], dp_size=3)
    expected = 3 * (0.5 * 3.0 + 0.25 * 0.5)
    assert (loss - without).item() == pytest.approx(expected)
    assert metrics["sft_loss"].aggregate() == pytest.approx(expected)


def test_the_cross_entropy_of_numbered_rows_is_reported_and_of_no_other() -> None:
    _, _, metrics = losses("token-mean", weights=[0.5, 0.25])
    assert metrics["refine_ce"] == [(1, [3.0, 0.5])]


@pytest.mark.parametrize("mode", MODES)
def test_chord_mixes_the_two_losses_and_weights_tokens_by_phi(mode: str) -> None:
    alone, loss, _ = losses(mode, [0.5, 0.25], policy_share=0.75, expert_phi=True)
    p, q = math.exp(-3.0), math.exp(-0.5)
    expected = 0.5 * p * (1 - p) * 3.0 + 0.25 * q * (1 - q) * 0.5
    assert loss.item() == pytest.approx(0.75 * alone.item() + expected)


@pytest.mark.parametrize("broken", [-math.inf, math.nan])
@pytest.mark.parametrize("phi", [False, True])
def test_a_row_whose_cross_entropy_is_not_finite_has_no_part_in_the_term(
    broken: float, phi: bool
) -> None:
    rows = [extra_row([0.5, 0.5]), extra_row([0.5, 0.5])]
    outputs = log_probs_of(rows, [torch.tensor([-1.0, broken]), torch.tensor([-1.0, -2.0])])
    batch = micro_batch(rows, 4, 2, expert_phi=phi)
    loss, metrics = constrained_loss(actor_config("token-mean"), outputs, batch)
    p, q = math.exp(-1.0), math.exp(-2.0)
    factors = (p * (1 - p), q * (1 - q)) if phi else (1.0, 1.0)
    assert loss.item() == pytest.approx(0.5 * 1.0 * factors[0] + 0.5 * 2.0 * factors[1])
    assert metrics["refine_ce"][0] == (1, pytest.approx([1.0, -broken], nan_ok=True))


def test_a_negative_weight_makes_a_token_less_likely() -> None:
    values = EXTRA_LOG_PROBS.clone().requires_grad_()
    rows = [extra_row([-0.5, 0.25])]
    outputs = log_probs_of(rows, [values])
    loss, metrics = constrained_loss(actor_config("token-mean"), outputs, micro_batch(rows, 4, 2))
    loss.backward()
    assert loss.item() == pytest.approx(-0.5 * 3.0 + 0.25 * 0.5)
    assert metrics["sft_loss"].aggregate() == loss.item()
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0.5, -0.25])
    broken = log_probs_of(rows, [torch.tensor([-math.inf, -0.5])])
    loss, _ = constrained_loss(actor_config("token-mean"), broken, micro_batch(rows, 4, 2))
    assert loss.item() == 0.0


def test_a_token_without_weight_may_have_any_log_prob() -> None:
    rows = [extra_row([0.5, 0.0])]
    outputs = log_probs_of(rows, [torch.tensor([-1.0, -math.inf])])
    loss, _ = constrained_loss(actor_config("token-mean"), outputs, micro_batch(rows, 4, 2))
    assert loss.item() == pytest.approx(0.5)


def test_gradients_equal_finite_differences_and_a_plain_sft_step_without_a_policy_term() -> None:
    logits = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([3, 5])
    rows = [extra_row([0.5, 0.25])]

    def term(values: torch.Tensor) -> torch.Tensor:
        log_probs = torch.log_softmax(values, dim=-1).gather(1, targets[:, None])[:, 0]
        loss, _ = constrained_loss(
            actor_config("token-mean"), log_probs_of(rows, [log_probs]), micro_batch(rows, 4, 2)
        )
        return loss

    assert torch.autograd.gradcheck(term, logits.clone().requires_grad_())
    free = logits.clone().requires_grad_()
    (got,) = torch.autograd.grad(term(free), free)
    sft = torch.nn.functional.cross_entropy(free, targets, reduction="none")
    (expected,) = torch.autograd.grad((sft * torch.tensor([0.5, 0.25])).sum(), free)
    assert torch.allclose(got, expected)


def test_batches_without_weights_get_verls_loss() -> None:
    rows = [policy_row(3, 0, weighted=False)]
    outputs = log_probs_of(rows, POLICY_LOG_PROBS[:1])
    config = actor_config("token-mean")
    expected, _ = ppo_loss(config, outputs, micro_batch(rows, 3, 1))
    got, metrics = constrained_loss(config, outputs, micro_batch(rows, 3, 1))
    assert got.item() == expected.item()
    assert "sft_loss" not in metrics


def test_policy_metrics_are_means_over_the_policys_tokens_whatever_is_beside_them() -> None:
    """Three tokens of one row with a log-ratio of -1 and one of another with +1, all clipped."""
    config = actor_config("token-mean")
    log_probs = [torch.full((3,), -2.0), torch.tensor([-1.0])]
    rows = [
        policy_row(3, 0, weighted=True),
        policy_row(1, 1, weighted=True),
        extra_row([0.5, 0.25]),
    ]
    for row, old, advantage in zip(rows, (-1.0, -2.0), (-1.0, 1.0), strict=False):
        row["old_log_probs"] = torch.full_like(row["old_log_probs"], old)
        row["advantages"] = torch.full_like(row["advantages"], advantage)
    outputs = [*log_probs, EXTRA_LOG_PROBS]

    def measured(*cuts: tuple[int, ...]) -> dict[str, float]:
        total: dict[str, float] = {}
        for cut in cuts:
            given = [rows[index] for index in cut]
            batch = micro_batch(given, 4, 2)
            output = log_probs_of(given, [outputs[index] for index in cut])
            for name, value in constrained_loss(config, output, batch)[1].items():
                if isinstance(value, Metric):
                    assert value.aggregation is AggregationType.SUM
                    total[name] = total.get(name, 0.0) + value.aggregate()
        return total

    alone: list[list[tuple[int, ...]]] = [[(0, 1)], [(0,), (1,)]]
    beside: list[list[tuple[int, ...]]] = [[(0, 1, 2)], [(0,), (1, 2)], [(0,), (1,), (2,)]]
    for cuts in alone + beside:
        got = measured(*cuts)
        assert got["actor/ppo_kl"] == pytest.approx((3 * 1.0 - 1.0) / 4)
        assert got["actor/pg_clipfrac"] == pytest.approx(1.0)


def test_policy_metrics_add_up_over_ranks_as_verl_averages_these() -> None:
    """Two ranks with three tokens and one: verl takes the mean over ranks of sums."""
    config = actor_config("token-mean")
    values = []
    for row, old in zip(
        (policy_row(3, 0, weighted=False), policy_row(1, 1, weighted=False)),
        (-1.0, -2.0),
        strict=True,
    ):
        row["old_log_probs"] = torch.full_like(row["old_log_probs"], old)
        batch = micro_batch([row], 4, 2, dp_size=2)
        log_probs = torch.full_like(row["old_log_probs"], -1.5)
        metrics = constrained_loss(config, log_probs_of([row], [log_probs]), batch)[1]
        values.append(metrics["actor/ppo_kl"])
    assert Metric.aggregate_dp(values) == pytest.approx((3 * 0.5 - 0.5) / 4)


def test_a_mini_batch_of_one_token_has_the_metrics_of_that_token() -> None:
    row = policy_row(1, 0, weighted=False)
    row["old_log_probs"] = torch.tensor([-1.0])
    output = log_probs_of([row], [torch.tensor([-1.5])])
    metrics = constrained_loss(actor_config("token-mean"), output, micro_batch([row], 1, 1))[1]
    assert metrics["actor/ppo_kl"].aggregate() == pytest.approx(0.5)


def test_metrics_that_are_no_means_stay_as_verl_reports_them() -> None:
    row = policy_row(1, 0, weighted=False)
    batch = micro_batch([row, row], 4, 2)
    largest = Metric(AggregationType.MAX, 3.0)
    assert per_token({"largest": largest, "a number": 2.0}, batch) == {
        "largest": largest,
        "a number": 2.0,
    }


def test_each_numbered_row_is_reported_with_its_own_values() -> None:
    weights = [[0.5, 0.25], [0.5], [0.5, 0.25, 0.125], [0.5]]
    rows = [policy_row(2, 0, weighted=True)]
    for number, one in enumerate(weights, start=1):
        extra = ExtraRow(PROMPT, list(range(len(one))), torch.tensor(one))
        rows.append(constraint_row(extra, 0 if number == 2 else number, RowForm(FIELDS)))
    parts = [torch.full((2,), -9.0)]
    parts += [-torch.arange(1.0, len(one) + 1) - 10 * at for at, one in enumerate(weights)]
    _, metrics = constrained_loss(
        actor_config("token-mean"), log_probs_of(rows, parts), micro_batch(rows, 2, 1)
    )
    assert metrics["refine_ce"] == [(1, [1.0, 2.0]), (3, [21.0, 22.0, 23.0]), (4, [31.0])]


@pytest.mark.parametrize("mode", MODES)
def test_a_micro_batch_of_extra_rows_only_has_a_finite_gradient(mode: str) -> None:
    values = EXTRA_LOG_PROBS.clone().requires_grad_()
    rows = [extra_row([0.5, 0.25])]
    loss, _ = constrained_loss(
        actor_config(mode), log_probs_of(rows, [values]), micro_batch(rows, 4, 2)
    )
    loss.backward()
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([-0.5, -0.25])

"""The constraint's mathematics, against values worked out by hand."""

import math

import pytest
import torch

from recipe.online_refiner.choices import Align, Filter, Reduce, Tokens
from recipe.online_refiner.method.maths import (
    accepts,
    aligned,
    expert_token_factor,
    expert_weights,
    kl_estimate,
    neutral_rewards,
    penalised,
    reduced,
    return_to_go,
    sft_weights,
    token_mask,
)


@pytest.mark.parametrize(
    ("rule", "worse", "equal", "better"),
    [
        (Filter.BETTER, False, False, True),
        (Filter.NOT_WORSE, False, True, True),
        (Filter.OFF, True, True, True),
    ],
)
def test_filter_compares_the_refined_reward_with_the_rollouts(
    rule: Filter, worse: bool, equal: bool, better: bool
) -> None:
    assert accepts(-0.3, -0.6, rule) is worse
    assert accepts(-0.3, -0.3, rule) is equal
    assert accepts(-0.3, 1.0, rule) is better


def test_filter_never_takes_a_missing_reward_for_a_better_one() -> None:
    assert not accepts(0.0, math.nan, Filter.BETTER)
    assert not accepts(math.nan, 1.0, Filter.NOT_WORSE)


def test_token_selection_follows_the_diff() -> None:
    copied = [1, 0, 1, 1]
    assert token_mask(copied, 1, Tokens.ALL) == [1, 1, 1, 1]
    assert token_mask(copied, 1, Tokens.EDITED) == [0, 1, 0, 0]
    assert token_mask(copied, 1, Tokens.AFTER_DIVERGENCE) == [0, 1, 1, 1]
    assert token_mask(copied, 1, Tokens.FIRST_EDIT) == [1, 1, 0, 0]
    assert token_mask([1, 1], 2, Tokens.FIRST_EDIT) == [1, 1]


def test_mean_divides_by_the_tokens_of_the_mask_and_leaves_empty_rows_at_zero() -> None:
    ce = torch.tensor([[2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert reduced(ce, mask, Reduce.SUM).tolist() == ce.tolist()
    assert reduced(ce, mask, Reduce.MEAN).tolist() == [[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]


def test_position_puts_each_token_on_its_step_and_the_rest_on_the_last() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    mask = torch.tensor([[1, 1, 0]])
    assert aligned(values, mask, Align.POSITION).tolist() == [[1.0, 2.0 + 4.0 + 8.0, 0.0]]


def test_position_leaves_steps_beyond_a_shorter_refinement_alone() -> None:
    values = torch.tensor([[1.0, 2.0]])
    mask = torch.tensor([[1, 1, 1, 1]])
    assert aligned(values, mask, Align.POSITION).tolist() == [[1.0, 2.0, 0.0, 0.0]]


def test_position_counts_only_the_rollouts_own_tokens() -> None:
    values = torch.tensor([[1.0, 2.0]])
    mask = torch.tensor([[1, 0, 0, 1]])
    assert aligned(values, mask, Align.POSITION).tolist() == [[1.0, 0.0, 0.0, 2.0]]


def test_last_puts_the_whole_sum_on_the_last_token() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0]])
    mask = torch.tensor([[1, 1, 0]])
    assert aligned(values, mask, Align.LAST).tolist() == [[0.0, 7.0, 0.0]]


def test_edit_lays_each_value_on_what_it_copies_replaces_or_follows() -> None:
    # a = w x y z; a' = w P Q y N z: w copied, x replaced by P Q, y copied, N inserted, z copied.
    sources = torch.tensor([[[0, 1], [1, 2], [1, 2], [2, 3], [2, 3], [3, 4]]])
    values = torch.tensor([[0.1, 1.0, 2.0, 0.2, 4.0, 0.3]])
    got = aligned(values, torch.tensor([[1, 1, 1, 1]]), Align.EDIT, sources)
    assert got.tolist() == [[pytest.approx(v) for v in (0.1, 3.0, 4.2, 0.3)]]


def test_edit_shares_a_value_over_a_longer_hunk_and_counts_only_the_rollouts_tokens() -> None:
    sources = torch.tensor([[[0, 2]]])
    got = aligned(torch.tensor([[3.0]]), torch.tensor([[1, 0, 1]]), Align.EDIT, sources)
    assert got.tolist() == [[1.5, 0.0, 1.5]]


def test_edit_takes_each_row_by_itself_and_leaves_what_has_no_place_to_the_last_token() -> None:
    sources = torch.tensor([[[0, 1]], [[1, 2]], [[1, 1]]])
    values = torch.tensor([[1.0], [2.0], [4.0]])
    got = aligned(values, torch.ones(3, 3), Align.EDIT, sources)
    assert got.tolist() == [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]]


def test_edit_without_a_diff_is_refused() -> None:
    with pytest.raises(ValueError, match="align=edit"):
        aligned(torch.ones(1, 2), torch.ones(1, 2), Align.EDIT)


def any_sources(values: torch.Tensor) -> torch.Tensor:
    """A diff in which token t of a' stands for tokens t and t + 1 of a."""
    starts = torch.arange(values.shape[1]).expand(values.shape[0], -1)
    return torch.stack([starts, starts + 2], dim=-1)


@pytest.mark.parametrize("how", list(Align))
def test_alignment_conserves_the_sum_except_on_rows_without_tokens(how: Align) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, 7, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    got = aligned(values, mask, how, any_sources(values))
    assert torch.allclose(got[:2].sum(dim=1), values[:2].sum(dim=1))
    assert got[2].tolist() == [0.0] * 5
    assert torch.all(got * (1 - mask) == 0)


def test_padding_further_right_changes_nothing() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0]])
    mask = torch.tensor([[1, 1]])
    padded_values = torch.nn.functional.pad(values, (0, 3))
    padded_mask = torch.nn.functional.pad(mask, (0, 2))
    for how in Align:
        wide = aligned(padded_values, padded_mask, how, any_sources(padded_values))
        assert wide[:, :2].tolist() == aligned(values, mask, how, any_sources(values)).tolist()


@pytest.mark.parametrize("how", list(Align))
def test_permuting_the_rows_permutes_the_result(how: Align) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(4, 6, generator=generator)
    mask = (torch.rand(4, 5, generator=generator) < 0.7).long()
    order = torch.tensor([2, 0, 3, 1])
    got = aligned(values[order], mask[order], how, any_sources(values)[order])
    assert torch.equal(got, aligned(values, mask, how, any_sources(values))[order])


def test_a_return_to_go_holds_what_is_still_to_come() -> None:
    penalty = torch.tensor([[1.0, 0.0, 4.0, 8.0]])
    mask = torch.ones(1, 4)
    assert return_to_go(penalty, mask, 1.0).tolist() == [[13.0, 12.0, 12.0, 8.0]]
    # 8; 4 + 8/2; 0 + 8/2; 1 + 4/2.
    assert return_to_go(penalty, mask, 0.5).tolist() == [[3.0, 4.0, 8.0, 8.0]]
    assert return_to_go(penalty, mask, 0.0).tolist() == penalty.tolist()


def test_a_return_to_go_counts_only_the_rollouts_own_tokens() -> None:
    penalty = torch.tensor([[1.0, 9.0, 4.0, 9.0]])
    mask = torch.tensor([[1, 0, 1, 0]])
    assert return_to_go(penalty, mask, 0.5).tolist() == [[3.0, 0.0, 4.0, 0.0]]


def test_a_penalty_is_taken_on_the_rollouts_unmasked_tokens() -> None:
    values = torch.tensor([[0.5, 0.5, 0.0]])
    penalty = torch.tensor([[0.1, 0.2, 0.3]])
    mask = torch.tensor([[1, 1, 0]])
    got = penalised(values, penalty, mask)
    assert got.tolist() == [[pytest.approx(0.4), pytest.approx(0.3), 0.0]]


def test_sft_weights_make_the_mean_over_rows_of_the_mean_over_tokens() -> None:
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    got = sft_weights(mask, lambda_=2.0, rows=4, how=Reduce.MEAN)
    assert got.tolist() == [[0.125] * 4, [0.25, 0.25, 0.0, 0.0]]
    summed = sft_weights(mask, lambda_=2.0, rows=4, how=Reduce.SUM)
    assert summed.tolist() == [[0.5] * 4, [0.5, 0.5, 0.0, 0.0]]


def test_sft_gradient_equals_the_gradient_of_the_formula() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0, 1, 2], [3, 4, 0]])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])

    def cross_entropy() -> torch.Tensor:
        log_probs = torch.log_softmax(logits, dim=-1)
        return -log_probs.gather(-1, targets[..., None])[..., 0]

    weights = sft_weights(mask, lambda_=0.7, rows=8, how=Reduce.MEAN).double()
    (got,) = torch.autograd.grad((cross_entropy() * weights).sum(), logits)
    means = (cross_entropy() * mask).sum(dim=1) / mask.sum(dim=1)
    (expected,) = torch.autograd.grad(0.7 * means.sum() / 8, logits)
    assert torch.allclose(got, expected)


def test_kl_is_the_mean_over_rows_of_the_summed_log_ratio() -> None:
    policy = torch.tensor([[-1.0, -1.0], [-2.0, 9.0]])
    reference = torch.tensor([[-1.5, -2.0], [-1.0, -9.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    assert kl_estimate(policy, reference, mask).item() == pytest.approx((1.5 - 1.0) / 2)


def test_expert_weights_average_over_demonstrations_whatever_their_length() -> None:
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    got = expert_weights(mask, share=0.5, mini_batches=2)
    # Two demonstrations over two mini-batches: each of them is its mini-batch's only one.
    assert got.tolist() == [[0.25, 0.25], [0.5, 0.0]]


def test_expert_weights_add_up_to_the_share_in_each_mini_batch() -> None:
    # Five answers on two mini-batches: 0, 2 and 4 in the first, 1 and 3 in the second.
    got = expert_weights(torch.ones(5, 2), share=0.75, mini_batches=2)
    assert got.sum(dim=1).tolist() == pytest.approx([0.25, 0.375, 0.25, 0.375, 0.25])
    # Two answers on three: the last mini-batch has none, and no weight is lost or divided by 0.
    got = expert_weights(torch.ones(2, 1), share=0.75, mini_batches=3)
    assert got.tolist() == [[0.75], [0.75]]


def test_phi_is_largest_at_even_odds_and_takes_no_gradient() -> None:
    log_probs = torch.tensor([[0.5, 0.9, 1.0]]).log().requires_grad_()
    factor = expert_token_factor(log_probs)
    assert factor.tolist() == [[pytest.approx(0.25), pytest.approx(0.09), pytest.approx(0.0)]]
    assert not factor.requires_grad


def test_a_missing_reward_is_its_groups_mean_and_an_unjudged_group_is_flat() -> None:
    rows = [("g", 1.0, True), ("g", 0.0, True), ("g", 9.0, False), ("h", 3.0, False)]
    assert neutral_rewards(rows) == [0.5, 0.5, 0.5, 0.0]

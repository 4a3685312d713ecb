"""Rows of a mixed batch and their order."""

import torch

from recipe.online_refiner.method.constraint import ExtraRow
from recipe.online_refiner.queue.label_code import labels_plus_one, weights
from recipe.online_refiner.update.rows import (
    RowForm,
    constraint_row,
    interleaved,
    response_row,
    rounded_up,
)

EXTRA = ExtraRow([5], [7, 8], torch.tensor([0.5, 0.25]))


def test_a_response_row_has_every_response_token_in_its_masks() -> None:
    row = response_row([5, 6], [7, 8, 9])
    assert row["input_ids"].tolist() == [5, 6, 7, 8, 9]
    assert row["position_ids"].tolist() == [0, 1, 2, 3, 4]
    assert row["response_mask"].tolist() == row["loss_mask"].tolist() == [1, 1, 1]


def test_a_constraint_row_is_invisible_to_the_policy_loss() -> None:
    row = constraint_row(EXTRA, 3, RowForm(["advantages", "old_log_probs"]))
    assert row["response_mask"].tolist() == row["loss_mask"].tolist() == [0, 0]
    assert row["advantages"].tolist() == row["old_log_probs"].tolist() == [0.0, 0.0]
    assert row["refine_weight"].tolist() == [0.5, 0.25]
    assert row["refine_number"].item() == 3
    assert "ref_log_prob" not in row and "refine_label" not in row
    assert not {"refine_target_ids", "refine_target_log_probs"} & set(row)


def test_beside_labels_a_constraint_row_is_asked_for_its_own_tokens() -> None:
    row = constraint_row(EXTRA, 3, RowForm([], with_labels=True))
    assert labels_plus_one(row["refine_label"]).tolist() == [8, 9]
    assert weights(row["refine_label"]).tolist() == [0.5, 0.25]
    assert row["refine_number"].item() == 3
    assert "refine_weight" not in row


def test_rounding_up_keeps_multiples_and_zero() -> None:
    assert [rounded_up(n, 4) for n in (0, 1, 4, 5)] == [0, 4, 4, 8]


def test_every_mini_batch_of_every_rank_gets_its_share() -> None:
    order = interleaved(list("abcdefgh"), list("wxyz"), ranks=2, mini_batches=2)
    assert order == list("abwcdxefyghz")


def spread(real: int, count: int, ranks: int, mini_batches: int) -> list[list[int]]:
    """Real rows of each mini-batch, by rank; those from `real` on are fillers."""
    order = interleaved((), range(count), ranks, mini_batches)
    block = count // (ranks * mini_batches)
    blocks = [order[start : start + block] for start in range(0, count, block)]
    sizes = [sum(row < real for row in one) for one in blocks]
    return [sizes[mini_batch::mini_batches] for mini_batch in range(mini_batches)]


def test_real_rows_are_spread_before_the_fillers() -> None:
    # Four rows a forward pass: 32 rows on eight mini-batches, 64 on four ranks of 16.
    assert spread(9, 32, ranks=1, mini_batches=8) == [[2], *[[1]] * 7]
    assert spread(40, 64, ranks=4, mini_batches=1) == [[10, 10, 10, 10]]
    # Mini-batches first: 4, 4 and 3 rows, each in halves.
    assert spread(11, 12, ranks=2, mini_batches=3) == [[2, 2], [2, 2], [2, 1]]


def test_a_row_is_in_the_same_mini_batch_on_any_number_of_ranks() -> None:
    for ranks in (1, 2, 4):
        order = interleaved((), range(16), ranks, mini_batches=2)
        block = 16 // (ranks * 2)
        blocks = [order[start : start + block] for start in range(0, 16, block)]
        first = {row for one in blocks[::2] for row in one}
        assert first == set(range(0, 16, 2))


def test_without_ranks_or_mini_batches_the_extra_rows_come_last() -> None:
    assert interleaved([1, 2], [3], ranks=1, mini_batches=1) == [1, 2, 3]

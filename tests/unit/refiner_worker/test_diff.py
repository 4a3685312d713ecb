"""The token diff, against alignments worked out by hand."""

from refiner_worker.diff import token_diff


def test_equal_sequences_are_all_copied() -> None:
    diff = token_diff([1, 2, 3], [1, 2, 3])
    assert diff.copied == (1, 1, 1)
    assert (diff.edit_distance, diff.divergence, diff.copied_ratio) == (0, 3, 1.0)


def test_a_replaced_token_is_the_only_edit() -> None:
    diff = token_diff([1, 2, 3, 4], [1, 9, 3, 4])
    assert diff.copied == (1, 0, 1, 1)
    assert (diff.edit_distance, diff.divergence) == (1, 1)


def test_what_follows_an_insertion_counts_as_copied() -> None:
    diff = token_diff([1, 2, 3], [1, 8, 9, 2, 3])
    assert diff.copied == (1, 0, 0, 1, 1)
    assert (diff.edit_distance, diff.divergence) == (2, 1)


def test_what_follows_a_deletion_counts_as_copied() -> None:
    diff = token_diff([1, 2, 3, 4], [1, 4])
    assert diff.copied == (1, 1)
    assert (diff.edit_distance, diff.divergence) == (2, 1)


def test_no_refinement_copies_nothing() -> None:
    diff = token_diff([1, 2], [])
    assert diff.copied == ()
    assert (diff.copied_ratio, diff.edit_distance, diff.divergence) == (0.0, 2, 0)

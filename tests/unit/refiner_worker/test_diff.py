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


def test_sources_are_what_a_token_repeats_replaces_or_follows() -> None:
    diff = token_diff([1, 2, 3, 4], [1, 8, 9, 3, 7, 4])
    assert diff.copied == (1, 0, 0, 1, 0, 1)
    assert diff.sources == ((0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (3, 4))


def test_an_insertion_at_the_start_follows_nothing_and_falls_on_the_first_token() -> None:
    assert token_diff([1], [5, 1]).sources == ((0, 1), (0, 1))

"""The token diff, against alignments worked out by hand and against properties of any alignment."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from rapidfuzz.distance import Levenshtein

from refiner_worker import diff as module
from refiner_worker.diff import TokenDiff, token_diff


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


def random_pair(rng: random.Random) -> tuple[list[int], list[int]]:
    """A text over few or many signs and an edited copy of it, or another text."""
    signs = rng.choice((2, 3, 50))
    before = [rng.randrange(signs) for _ in range(rng.randrange(60))]
    if rng.random() < 0.2:
        return before, [rng.randrange(signs) for _ in range(rng.randrange(60))]
    after = list(before)
    for _ in range(rng.randrange(6)):
        place = rng.randrange(len(after) + 1)
        new = [rng.randrange(signs) for _ in range(rng.randrange(4))]
        after[place : place + rng.randrange(3)] = new
    return before, after


def assert_sound(before: list[int], after: list[int], diff: TokenDiff) -> None:
    """Copied tokens are those of their source, and outside the hunks the texts are equal."""
    assert len(diff.copied) == len(diff.sources) == len(after)
    for token, is_copied, (start, end) in zip(after, diff.copied, diff.sources, strict=True):
        assert not is_copied or (end == start + 1 and before[start] == token)
    at_before = at_after = 0
    for (start, end), (first, last) in diff.hunks:
        assert before[at_before:start] == after[at_after:first]
        assert not any(diff.copied[first:last])
        at_before, at_after = end, last
    assert before[at_before:] == after[at_after:]


@pytest.mark.parametrize("seed", range(300))
def test_any_two_texts_get_a_sound_and_shortest_diff(seed: int) -> None:
    before, after = random_pair(random.Random(seed))
    diff = token_diff(before, after)
    assert_sound(before, after, diff)
    assert diff.edit_distance == Levenshtein.distance(before, after)


@pytest.mark.parametrize("seed", range(300))
def test_a_diff_by_windows_is_sound_and_no_shorter_than_the_shortest(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 16)
    monkeypatch.setattr(module, "WINDOW_TOKENS", 8)
    before, after = random_pair(random.Random(seed))
    diff = token_diff(before, after)
    assert_sound(before, after, diff)
    assert diff.edit_distance >= Levenshtein.distance(before, after)


LOOP = [1, 2, 3, 1, 2, 4, 1]


@pytest.mark.parametrize("tokens", [2_000, 10_000, 40_000])
@pytest.mark.parametrize("other", [[1, 3, 2], [1, 2, 3, 1, 2, 4], [5, 6]])
def test_the_work_on_texts_that_loop_is_bounded(
    tokens: int, other: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = 0

    def counting(a: Sequence[int], b: Sequence[int]) -> Any:
        nonlocal cells
        cells += len(a) * len(b)
        return opcodes(a, b)

    opcodes = Levenshtein.opcodes
    monkeypatch.setattr(module, "MAX_CELLS", 10**7)
    monkeypatch.setattr(module.Levenshtein, "opcodes", counting)
    before, after = LOOP * (tokens // len(LOOP)), other * (tokens // len(other))
    diff = token_diff(before, after)
    assert_sound(before, after, diff)
    windows = 4 * module.WINDOW_TOKENS * (len(before) + len(after))
    assert 0 < cells <= max(10**7, windows)


def test_hunks_name_what_is_dropped_and_what_is_new() -> None:
    diff = token_diff([1, 2, 3, 4], [1, 8, 9, 3, 7, 4])
    assert diff.hunks == (((1, 2), (1, 3)), ((3, 3), (4, 5)))

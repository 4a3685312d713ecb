"""Where the copy proposer looks for the continuation of an edited copy."""

from types import SimpleNamespace

import numpy as np
import pytest

from refiner_worker.copy_proposer import (
    DECAY,
    DRAFTED_PER_AGREEING,
    LEAST_SCORE,
    WINDOW,
    CopyProposer,
    proposal,
    siblings_of,
)

DRAFT = [10, 11, 12, 13, 14, 15, 16]
PROMPT = [1, 2, *DRAFT, 3]


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The rows as vLLM holds them, and their lengths."""
    table = np.zeros((len(rows), max(map(len, rows))), dtype=np.int32)
    for row, one in zip(table, rows, strict=True):
        row[: len(one)] = one
    return table, np.array([len(one) for one in rows])


def continuation(tokens: list[int], most: int, *siblings: list[int]) -> list[int]:
    """The proposal for a request beside others."""
    table, lengths = padded([tokens, *siblings])
    found: list[int] = proposal(table, lengths, 0, siblings_of(table, lengths)[0], most).tolist()
    return found


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ([10, 11, 12], [13, 14, 15]),
        ([10, 11, 12, 13, 99], [15, 16, 3]),  # 99 stands for 14: go on at 15
        ([10, 11, 12, 99, 13, 14], [15, 16, 3]),  # 99 was inserted: found again after two
        ([10, 11, 13, 14], [15, 16, 3]),  # 12 was left out: found again after two
    ],
)
def test_an_edited_copy_goes_on_where_the_draft_does(
    output: list[int], expected: list[int]
) -> None:
    assert continuation(PROMPT + output, 24)[:3] == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ([10, 11], [12, 13, 14, 15, 16, 3]),  # 2 agree: 8, of which 6 are allowed
        ([10], []),  # one alone may be chance
        ([10, 11, 99], []),  # two before a strange one: 0.6 + 0.36 is too little
    ],
)
def test_the_more_tokens_agree_the_more_are_proposed(
    output: list[int], expected: list[int]
) -> None:
    assert continuation(PROMPT + output, 6) == expected


def test_of_equal_places_the_last_is_taken() -> None:
    assert continuation([4, 5, 6, 7, 4, 5, 8, 9, 4, 5], 16)[:2] == [8, 9]


def test_nothing_is_proposed_for_what_has_not_occurred() -> None:
    assert continuation([1, 2, 3], 4) == []


def test_a_sibling_that_is_ahead_shows_how_it_goes_on() -> None:
    statement, other_draft = [1, 2, 4, 5, 6], [30, 31, 32, 3]
    ahead = [*statement, *other_draft, 50, 51, 52, 53]
    # 50 and 51 are nowhere in the request's own prompt.
    assert continuation([*statement, *DRAFT, 3, 50, 51], 8, ahead) == [52, 53]
    assert continuation([*statement, *DRAFT, 3, 50, 51], 8) == []


def test_a_sibling_with_the_same_tokens_so_far_is_followed() -> None:
    assert continuation([1, 2, 3], 8, [1, 2, 3, 7, 8]) == [7, 8]


def test_where_both_agree_alike_the_own_draft_is_copied() -> None:
    sibling = [1, 2, 10, 11, 40, 41]
    assert continuation([*PROMPT, 10, 11], 2, sibling) == [12, 13]


def test_siblings_are_the_rows_that_begin_most_alike() -> None:
    rows = [[1, 1, 1, 9], [2, 0, 0, 0], [1, 1, 2, 0], [1, 2, 0, 0], [1, 1, 1, 8], [3, 0, 0, 0]]
    found = siblings_of(np.array(rows, dtype=np.int32), np.full(6, 4))
    assert found[0].tolist()[-2:] == [4, 2]
    assert set(found[0].tolist()) == {4, 2, 3, -1}


@pytest.mark.parametrize("seed", range(20))
def test_pruning_loses_no_position(seed: int) -> None:
    """Against the definition, on random rows of few letters."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 3, rng.integers(4, 24)).tolist() for _ in range(4)]
    assert continuation(rows[0], 5, *rows[1:]) == by_definition(rows[0], rows[1:], 5)


def by_definition(own: list[int], others: list[list[int]], most: int) -> list[int]:
    """Scores every position of every row; siblings come in the proposer's order."""
    rows = [own, *others]
    order = siblings_of(*padded(rows))[0]
    best, chosen = LEAST_SCORE, []
    for source in [*(rows[index] for index in order if index >= 0), own]:
        for at in range(len(source) - 1):
            pairs = zip(reversed(source[: at + 1]), reversed(own), strict=False)
            agree = [one == other for one, other in pairs][:WINDOW]
            score = sum(DECAY**back for back, same in enumerate(agree) if same)
            if score >= best and (source is own or at + 1 >= common(source, own)):
                count = min(most, DRAFTED_PER_AGREEING * sum(agree))
                best, chosen = score, source[at + 1 : at + 1 + count]
    return chosen


def common(one: list[int], other: list[int]) -> int:
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def test_requests_without_new_tokens_or_room_get_no_proposal() -> None:
    config = SimpleNamespace(
        speculative_config=SimpleNamespace(num_speculative_tokens=16),
        model_config=SimpleNamespace(max_model_len=12),
    )
    tokens = np.zeros((3, 12), dtype=np.int32)
    tokens[:, :11] = [*PROMPT[1:], 10, 11]
    lengths = np.array([11, 11, 12])
    # Row 0 would overrun the context of 12 tokens, row 1 is still in its prefill.
    assert CopyProposer(config).propose([[11], [], [11]], lengths, tokens) == [[], [], []]
    config.model_config.max_model_len = 40
    assert CopyProposer(config).propose([[11], []], lengths[:2], tokens) == [
        [12, 13, 14, 15, 16, 3, 10, 11],
        [],
    ]

"""Where the copy proposer looks for the continuation of an edited copy."""

from types import SimpleNamespace

import numpy as np
import pytest

from refiner_worker.copy_proposer import (
    BEYOND_AGREEING,
    DECAY,
    FEW_REQUESTS,
    LEAST_SCORE,
    WINDOW,
    CopyProposer,
    proposal,
)

DRAFT = [10, 11, 12, 13, 14, 15, 16]
PROMPT = [1, 2, *DRAFT, 3]


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The rows as vLLM holds them, and their lengths."""
    table = np.zeros((len(rows), max(map(len, rows))), dtype=np.int32)
    for row, one in zip(table, rows, strict=True):
        row[: len(one)] = one
    return table, np.array([len(one) for one in rows])


def continuation(
    tokens: list[int], most: int, *siblings: list[int], begun: bool = False, full: bool = True
) -> list[int]:
    """The proposal for a text beside others."""
    table, lengths = padded([tokens, *siblings])
    others = np.arange(1, len(lengths))
    found: list[int] = proposal(table, lengths, 0, others, most, begun, full).tolist()
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
        ([10, 11], [12, 13, 14, 15]),  # 2 agree: 4
        ([10, 11, 12], [13, 14, 15, 16, 3]),  # 3 agree: 5
        ([10, 11, 12, 13, 99], [15, 16]),  # the last is strange: 2, where it would be
        ([10], []),  # one alone may be chance
        ([10, 11, 99], []),  # two before a strange one: 0.6 + 0.36 is too little
    ],
)
def test_the_more_tokens_agree_the_more_are_proposed(
    output: list[int], expected: list[int]
) -> None:
    assert continuation(PROMPT + output, 6, full=False) == expected


def test_among_few_requests_a_draft_is_as_long_as_it_may_be() -> None:
    assert continuation([*PROMPT, 10, 11], 6) == [12, 13, 14, 15, 16, 3]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (10, [11, 12, 13, 14]),  # its answer's beginning, though 10 ends the prompt as well
        (77, []),
    ],
)
def test_an_answers_first_token_is_followed_where_it_first_occurs(
    first: int, expected: list[int]
) -> None:
    for full in (True, False):
        assert continuation([*PROMPT, 10, first], 4, begun=True, full=full) == expected
    assert continuation([*PROMPT, 10, first], 4) == []


def test_a_begun_answer_follows_a_sibling_that_is_ahead() -> None:
    ahead = [*PROMPT, 3, 50, 51, 52]
    assert continuation([*PROMPT, 3, 50], 4, ahead, begun=True) == [51, 52]


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


@pytest.mark.parametrize("seed", range(20))
def test_pruning_loses_no_position(seed: int) -> None:
    """Against the definition, on random rows of few letters."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 3, rng.integers(4, 24)).tolist() for _ in range(4)]
    for full in (True, False):
        found = continuation(rows[0], 5, *rows[1:], full=full)
        assert found == by_definition(rows[0], rows[1:], 5, full)


def by_definition(own: list[int], others: list[list[int]], most: int, full: bool) -> list[int]:
    """Scores every position of every text."""
    best, chosen = LEAST_SCORE, []
    for source in [*others, own]:
        for at in range(len(source) - 1):
            pairs = zip(reversed(source[: at + 1]), reversed(own), strict=False)
            agree = [one == other for one, other in pairs][:WINDOW]
            score = sum(DECAY**back for back, same in enumerate(agree) if same)
            if score >= best and (source is own or at + 1 >= common(source, own)):
                run = [*agree, False].index(False)
                count = most if full else min(most, run + BEYOND_AGREEING)
                best, chosen = score, source[at + 1 : at + 1 + count]
    return chosen


def common(one: list[int], other: list[int]) -> int:
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def proposer(longest: int, rows: int = 3) -> CopyProposer:
    return CopyProposer(
        SimpleNamespace(
            speculative_config=SimpleNamespace(num_speculative_tokens=8),
            model_config=SimpleNamespace(max_model_len=longest),
            scheduler_config=SimpleNamespace(max_num_seqs=rows),
        )
    )


def test_requests_without_new_tokens_or_room_get_no_proposal() -> None:
    tokens = np.zeros((3, 40), dtype=np.int32)
    tokens[:, :11] = [*PROMPT[1:], 10, 11]
    lengths = np.array([11, 11, 12])
    # Row 0 would overrun the context of 12 tokens, row 1 is still in its prefill.
    step = [[11], [], [11]]
    assert proposer(12).propose(step, lengths, tokens[:, :12]) == [[], [], []]
    assert proposer(40).propose(step[:2], lengths, tokens) == [[12, 13, 14, 15, 16, 3, 10, 11], []]


def test_what_has_just_finished_is_followed_until_it_is_forgotten() -> None:
    engine = proposer(16)
    tokens = np.zeros((3, 16), dtype=np.int32)
    tokens[0, :15] = [*PROMPT, 50, 51, 52, 53, 54]
    engine.propose([[50, 51, 52, 53, 54]], np.array([15]), tokens)
    tokens[0, :12] = [*PROMPT, 50, 51]
    assert engine.propose([[51]], np.array([12]), tokens) == [[52, 53, 54]]
    engine.forget()
    assert engine.propose([[51]], np.array([12]), tokens) == [[]]


@pytest.mark.parametrize(("others", "length"), [(FEW_REQUESTS - 1, 8), (FEW_REQUESTS, 4)])
def test_only_requests_that_go_on_count_towards_few(others: int, length: int) -> None:
    rows = others + 2
    tokens = np.zeros((rows, 40), dtype=np.int32)
    tokens[:, :12] = [*PROMPT, 10, 11]
    tokens[:, 0] = range(rows)
    lengths = np.full(rows, 12)
    engine = proposer(40, rows)
    engine.propose([[10]] * rows, lengths - 1, tokens)
    drafts = engine.propose([[11]] * (rows - 1) + [[]], lengths, tokens)
    assert len(drafts[0]) == length

"""Where the copy proposer looks for the continuation of an edited copy."""

from types import SimpleNamespace

import numpy as np
import pytest

from refiner_worker.copy_proposer import CopyProposer, continuation

DRAFT = [10, 11, 12, 13, 14, 15, 16]
PROMPT = [1, 2, *DRAFT, 3]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ([10], [11, 12, 13]),  # from the first token on
        ([10, 11, 12], [13, 14, 15]),
        ([10, 11, 12, 99], [14, 15, 16]),  # 99 stands for 13: go on at 14
        ([10, 11, 12, 99, 13], [14, 15, 16]),  # 99 was inserted: found again at once
        ([10, 11, 13, 14], [15, 16, 3]),  # 12 was left out: found again after two
    ],
)
def test_an_edited_copy_goes_on_where_the_draft_does(
    output: list[int], expected: list[int]
) -> None:
    assert continuation(np.array(PROMPT + output), 24).tolist()[:3] == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ([10], [11, 12, 13, 14]),  # 1 agrees: 4 tokens
        ([10, 11], [12, 13, 14, 15, 16, 3]),  # 2 agree: 8, of which 6 are allowed
        ([10, 11, 99], []),  # two before a strange one: 0.6 + 0.36 is too little
    ],
)
def test_the_more_tokens_agree_the_more_are_proposed(
    output: list[int], expected: list[int]
) -> None:
    assert continuation(np.array(PROMPT + output), 6).tolist() == expected


def test_of_equal_places_the_last_is_taken() -> None:
    assert continuation(np.array([5, 6, 7, 5, 8, 9, 5]), 16).tolist()[:2] == [8, 9]


def test_nothing_is_proposed_for_what_has_not_occurred() -> None:
    assert continuation(np.array([1, 2, 3]), 4).tolist() == []


def test_requests_without_new_tokens_or_room_get_no_proposal() -> None:
    config = SimpleNamespace(
        speculative_config=SimpleNamespace(num_speculative_tokens=16),
        model_config=SimpleNamespace(max_model_len=12),
    )
    tokens = np.zeros((3, 12), dtype=np.int32)
    tokens[:, :11] = [*PROMPT, 10]
    lengths = np.array([11, 11, 12])
    # Row 0 would overrun the context of 12 tokens, row 1 is still in its prefill.
    assert CopyProposer(config).propose([[10], [], [10]], lengths, tokens) == [[], [], []]
    config.model_config.max_model_len = 40
    assert CopyProposer(config).propose([[10], [], [10]], lengths[:2], tokens) == [
        [11, 12, 13, 14],
        [],
    ]

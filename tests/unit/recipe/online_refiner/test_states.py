"""In which state of the rollout each token of a refinement is asked for, worked out by hand."""

import pytest
import torch
from steps import refinement, rollout

from recipe.online_refiner.choices import Conditioning, Tokens
from recipe.online_refiner.method.accepted import accepted_rollouts
from recipe.online_refiner.method.labels import labels_of, on_steps, on_tokens
from recipe.online_refiner.method.states import states_of
from recipe.online_refiner.records import RefinedRollout
from refiner_worker.diff import token_diff


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def states(answer: str, refined: str, tokens: Tokens = Tokens.ALIGNED) -> list[int]:
    diff = token_diff(ids(answer), ids(refined))
    return states_of(diff.copied, diff.sources, len(answer), tokens)


@pytest.mark.parametrize(
    ("answer", "refined", "expected"),
    [
        ("abcd", "abcd", [0, 1, 2, 3]),
        # Replaced: each in the state before the token that it replaces.
        ("abcd", "abXd", [0, 1, 2, 3]),
        ("a", "X", [0]),
        # A hunk that became longer: its states are used up; shorter: the rest asks for nothing.
        ("abcd", "aXYZd", [0, 1, 2, -1, 3]),
        ("abcdef", "abXef", [0, 1, 2, 4, 5]),
        # Inserted: the first token takes the state from the copied token that follows.
        ("abcd", "abXYcd", [0, 1, 2, -1, -1, 3]),
        ("abcd", "Xabcd", [0, -1, 1, 2, 3]),
        # Inserted at the end, where the rollout has no step.
        ("abc", "abcXY", [0, 1, 2, -1, -1]),
        ("", "XY", [-1, -1]),
        # Deleted: what follows is asked for where it stands.
        ("abcd", "ad", [0, 3]),
        ("abcd", "Xd", [0, 3]),
        # Inserted and the next one replaced is one hunk.
        ("abcd", "XYbcd", [0, -1, 1, 2, 3]),
        ("abc", "", []),
    ],
)
def test_aligned_asks_for_a_token_where_the_rollout_has_what_it_copies_or_replaces(
    answer: str, refined: str, expected: list[int]
) -> None:
    assert states(answer, refined) == expected


def test_no_state_is_asked_for_two_tokens() -> None:
    for answer, refined in (("abab", "abXab"), ("aaaa", "aaXaYaa"), ("abcabc", "XbcYYabcZ")):
        found = [state for state in states(answer, refined) if state >= 0]
        assert found == sorted(set(found))


def test_by_position_a_token_is_asked_for_at_its_own_step_while_there_is_one() -> None:
    assert states("abc", "aXbcd", Tokens.ALL) == [0, 1, 2, -1, -1]
    assert states("abcd", "ab", Tokens.FIRST_EDIT) == [0, 1]


def refined_rollout(answer: str, refined: str, tokens: Tokens) -> RefinedRollout:
    diff = token_diff(ids(answer), ids(refined))
    better = refinement(ids(refined), diff.copied, sources=diff.sources)
    rollouts = [rollout("a_0", ids(answer), better)]
    (found,) = accepted_rollouts(rollouts, tokens, Conditioning.SELF_FEEDING)
    return found


@pytest.mark.parametrize(
    ("tokens", "mask"),
    [
        (Tokens.ALL, [1, 1, 1, 1, 0]),
        (Tokens.EDITED, [0, 0, 1, 0, 0]),
        (Tokens.AFTER_DIVERGENCE, [0, 0, 1, 1, 0]),
        (Tokens.FIRST_EDIT, [1, 1, 1, 0, 0]),
        (Tokens.ALIGNED, [1, 1, 1, 0, 1]),
    ],
)
def test_the_token_mask_has_the_chosen_tokens_that_have_a_state(
    tokens: Tokens, mask: list[int]
) -> None:
    found = refined_rollout("abcd", "abXcd", tokens)
    assert found.token_mask.tolist() == mask
    assert found.asked.tolist() == [bool(flag) for flag in mask]


def test_labels_stand_on_the_steps_and_their_values_come_back_on_the_tokens() -> None:
    found = refined_rollout("abcd", "abXcd", Tokens.ALIGNED)
    (labels,) = labels_of([found], [torch.tensor([0.1, 0.2, 0.3, 0.0, 0.5])])
    assert labels.token_ids.tolist() == ids("abXd")
    assert labels.weights is not None
    assert labels.weights.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.5])
    measured = on_tokens(found, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert measured.tolist() == [1.0, 2.0, 3.0, 0.0, 4.0]
    assert on_steps(found, measured).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_steps_beyond_the_mask_have_no_label() -> None:
    found = refined_rollout("abcd", "abXcd", Tokens.EDITED)
    (labels,) = labels_of([found])
    assert labels.token_ids.tolist() == [-1, -1, ord("X"), -1]
    assert labels.weights is None
    (weighted,) = labels_of([found], [torch.full((5,), 0.5)])
    assert weighted.weights is not None and weighted.weights.tolist() == [0.0, 0.0, 0.5, 0.0]
    assert on_tokens(found, torch.tensor([3.0])).tolist() == [0.0, 0.0, 3.0, 0.0, 0.0]


def test_a_refinement_that_is_not_read_in_the_rollouts_states_has_no_labels() -> None:
    rollouts = [rollout("a_0", ids("ab"), refinement(ids("aX"), (1, 0)))]
    (found,) = accepted_rollouts(rollouts, Tokens.ALL, Conditioning.TEACHER_FORCING)
    with pytest.raises(ValueError, match="a_0 is not read in the rollout's states"):
        labels_of([found])


def test_labels_of_many_refinements_are_those_of_each() -> None:
    pairs = [("abcd", "abXcd"), ("ab", "XYb"), ("", "X"), ("abc", "b"), ("abcd", "")]
    refined = [refined_rollout(*pair, Tokens.ALIGNED) for pair in pairs]
    weights = [torch.arange(1.0, len(pair[1]) + 1) for pair in pairs]
    together = labels_of(refined, weights)
    for one, weight, found in zip(refined, weights, together, strict=True):
        (alone,) = labels_of([one], [weight])
        assert found.key == alone.key
        assert found.token_ids.tolist() == alone.token_ids.tolist()
        assert found.weights is not None and alone.weights is not None
        assert found.weights.tolist() == alone.weights.tolist()
    # X takes the state of b, and Y has none; nothing is asked for on an empty rollout.
    assert together[1].token_ids.tolist() == ids("Xb")
    assert together[2].token_ids.tolist() == []
    assert labels_of([]) == []

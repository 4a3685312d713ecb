"""Rows of a batch are followed from step to step, and what has finished is remembered."""

import numpy as np
import pytest

from refiner_worker import recent_texts
from refiner_worker.recent_texts import RecentTexts

LONGEST = 16


class Batch:
    """An engine's table, of which the texts see one step after the other."""

    def __init__(self, rows: int = 4) -> None:
        self.texts = RecentTexts(rows, LONGEST)
        self.table = np.zeros((rows, LONGEST), dtype=np.int32)

    def step(self, rows: list[tuple[list[int], int]]) -> tuple[list[int], list[bool]]:
        """Each row's tokens and how many of them are new."""
        self.table[:] = -7  # what is left of other requests
        for row, (tokens, _) in zip(self.table, rows, strict=False):
            row[: len(tokens)] = tokens
        lengths = np.array([len(tokens) for tokens, _ in rows])
        grown = np.array([new for _, new in rows])
        places, begun = self.texts.follow(self.table, lengths, grown)
        return places.tolist(), begun.tolist()

    def held(self, place: int) -> list[int]:
        text: list[int] = self.texts.tokens[place, : self.texts.lengths[place]].tolist()
        return text


def test_a_text_begins_when_its_prompt_was_read() -> None:
    batch = Batch()
    assert batch.step([([1, 2, 3], 0), ([4, 5, 9], 1)])[1] == [False, True]
    (reading, _), begun = batch.step([([1, 2, 3, 8], 1), ([4, 5, 9, 9], 1)])
    assert begun == [True, False]
    assert batch.held(reading) == [1, 2, 3, 8]


def test_a_prompt_that_is_being_read_has_no_place() -> None:
    batch = Batch()
    assert batch.step([([1, 2, 3], 0)]) == ([-1], [False])
    assert not batch.texts.lengths.any()


def test_rows_keep_their_places_when_they_grow_by_several_tokens_or_move() -> None:
    batch = Batch()
    (one, two, three), _ = batch.step([([1, 5], 1), ([2, 5], 1), ([3, 5], 1)])
    # The first has finished, the last has taken its row, and a new one stands at the end.
    moved, begun = batch.step([([3, 5, 6, 7, 8], 3), ([2, 5, 6], 1), ([4, 5], 1)])
    assert (moved[:2], begun) == ([three, two], [False, False, True])
    assert batch.held(three) == [3, 5, 6, 7, 8]
    assert batch.held(one) == [1, 5]  # remembered
    assert len({*moved, one}) == 4


def test_a_row_without_new_tokens_keeps_its_place() -> None:
    batch = Batch()
    before, _ = batch.step([([1, 5], 1)])
    assert batch.step([([1, 5], 0)]) == (before, [False])


def test_a_row_goes_on_after_steps_that_were_not_shown() -> None:
    batch = Batch()
    (one, two), _ = batch.step([([1, 5], 1), ([2, 5], 1)])
    batch.step([([2, 5, 6], 1)])  # the first was taken out
    places, begun = batch.step([([2, 5, 6, 7, 8, 9], 1), ([1, 5, 6], 1)])
    assert (places, begun) == ([two, one], [False, False])
    assert batch.held(two) == [2, 5, 6, 7, 8, 9]


def test_another_request_in_a_row_is_another_text() -> None:
    batch = Batch()
    (old,), _ = batch.step([([1, 2, 5], 1)])
    # As long as the first would be with its next token, and different only at its beginning.
    (new,), begun = batch.step([([9, 2, 5, 6], 1)])
    assert begun == [True]
    assert batch.held(old) == [1, 2, 5]
    assert batch.held(new) == [9, 2, 5, 6]


def test_equal_requests_have_places_of_their_own() -> None:
    batch = Batch()
    places, _ = batch.step([([1, 5], 1), ([1, 5], 1)])
    assert len(set(places)) == 2
    assert sorted(batch.step([([1, 5, 6], 1), ([1, 5, 7], 1)])[0]) == sorted(places)


def test_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_texts, "REMEMBERED", 2)
    batch = Batch(rows=2)
    (stays, *_), _ = batch.step([([1, 5], 1)])
    length = 2
    for other in range(2, 20):
        length += other % 3 == 0
        text = [1, 5, 5, 5, 5, 5, 5, 5, 5][:length]
        batch.step([(text, int(other % 3 == 0)), ([other, 5], 1)])
        assert batch.held(stays) == text
    held = {batch.held(place)[0] for place in range(4)}
    assert held == {1, 17, 18, 19}
    around = {*batch.texts.siblings(np.arange(4)).ravel().tolist(), -1}
    assert around == {-1, 0, 1, 2, 3}


def test_siblings_are_the_texts_that_begin_most_alike() -> None:
    batch = Batch(rows=6)
    rows = [[1, 1, 1, 9], [2, 0, 0, 0], [1, 1, 2, 0], [1, 2, 0, 0], [1, 1, 1, 8], [3, 0, 0, 0]]
    places, _ = batch.step([(row, 1) for row in rows])
    found = batch.texts.siblings(np.array(places))
    assert found[0].tolist()[-2:] == [places[4], places[2]]
    assert set(found[0].tolist()) == {places[4], places[2], places[3], -1}


def test_a_finished_text_is_a_sibling() -> None:
    batch = Batch()
    (old,), _ = batch.step([([1, 2, 5], 1)])
    (new,), _ = batch.step([([1, 2, 6], 1)])
    assert old in batch.texts.siblings(np.array([new]))[0]
    assert batch.texts.siblings(np.array([-1])).tolist() == [[-1, -1, -1, -1]]


def test_nothing_is_known_after_forgetting() -> None:
    batch = Batch()
    batch.step([([1, 2, 5], 1)])
    batch.texts.forget()
    (place,), begun = batch.step([([1, 2, 5, 6], 1)])
    assert begun == [True]
    assert batch.texts.siblings(np.array([place])).tolist() == [[-1, -1, -1, -1]]


@pytest.mark.parametrize("seed", range(10))
def test_every_row_is_followed_through_any_traffic(seed: int) -> None:
    """Requests come, grow, move, are left out and go; each keeps its place to its end."""
    rng = np.random.default_rng(seed)
    batch = Batch(rows=5)
    running: dict[int, list[int]] = {}
    place_of: dict[int, int] = {}
    for step in range(60):
        for gone in [key for key in running if rng.random() < 0.15 or len(running[key]) > 12]:
            del running[gone]
            place_of.pop(gone, None)
        if len(running) < 5 and rng.random() < 0.6:
            running[step] = [step, *rng.integers(0, 2, 2).tolist()]
        for unseen in [key for key in place_of if rng.random() < 0.2]:
            running[unseen] += rng.integers(0, 2, int(rng.integers(0, 2))).tolist()
        order = [key for key in rng.permutation(list(running)).tolist() if rng.random() < 0.8]
        grown = {key: int(rng.integers(1 if key not in place_of else 0, 4)) for key in order}
        for key in order:
            running[key] += rng.integers(0, 2, grown[key]).tolist()
        places, begun = batch.step([(running[key], grown[key]) for key in order])
        for key, place, new in zip(order, places, begun, strict=True):
            assert new == (key not in place_of)
            assert place_of.setdefault(key, place) == place
            assert batch.held(place) == running[key]

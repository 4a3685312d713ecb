"""The texts of the requests that an engine serves, and of those that it has just served.

vLLM shows a proposer the tokens of each row of its batch, without saying which request a row is,
and a finished request's row is another's in the next step. Here the rows are followed from step to
step by their tokens, and what has finished is remembered a while. Ours.
"""

from bisect import bisect_left, insort

import numpy as np
from numba import njit  # type: ignore[import-untyped]

REMEMBERED = 256
"""Finished texts that are kept, at least."""
NEIGHBOURS = 2
"""Siblings of a text on either side, in the order of their prompts' tokens: 4 in all."""


class RecentTexts:
    """Texts in numbered places: those of the current batch, and the last ones before.

    Args:
        rows: requests that a batch has at most.
        longest: tokens that a request has at most.

    Attributes:
        tokens: [rows + REMEMBERED, longest] what each place holds.
        lengths: [rows + REMEMBERED] how much of it; 0 if it holds nothing.
    """

    def __init__(self, rows: int, longest: int) -> None:
        places = rows + REMEMBERED
        self.tokens = np.zeros((places, longest), dtype=np.int32)
        self.lengths = np.zeros(places, dtype=np.int64)
        self.forget()

    def forget(self) -> None:
        """Start anew, as if nothing had been served."""
        self.lengths[:] = 0
        self._used = np.zeros(len(self.lengths), dtype=np.int64)
        self._step = 0
        self._current = np.empty(0, dtype=np.int64)
        self._order: list[tuple[bytes, int]] = []
        self._keys: dict[int, bytes] = {}

    def follow(
        self, table: np.ndarray, lengths: np.ndarray, grown: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take in one step of the engine.

        Args:
            table: [B or more, longest] the tokens of the batch's rows.
            lengths: [B] tokens of each row. grown: [B] how many of them are new in this step.

        Returns:
            [B] each row's place, -1 for one that has never grown (a prompt that is being read),
            and [B] whether the text is new here: as a rule, its prompt was read in this step.
        """
        self._step += 1
        last = self._current
        elsewhere = np.concatenate((last, np.arange(len(self.lengths))))
        places = followed(self.tokens, self.lengths, last, elsewhere, table, lengths, grown)
        self._used[places[places >= 0]] = self._step
        begun = (places < 0) & (grown > 0)
        for row in np.flatnonzero(begun):
            places[row] = self._begin(table[row, : lengths[row]])
        self._current = places
        return places, begun

    def _begin(self, text: np.ndarray) -> int:
        """Give a text the place that has been of no use for longest."""
        place = int(self._used.argmin())
        if place in self._keys:
            del self._order[bisect_left(self._order, (self._keys.pop(place), place))]
        self._used[place] = self._step
        self._keys[place] = text.tobytes()
        insort(self._order, (self._keys[place], place))
        self.tokens[place, : len(text)] = text
        self.lengths[place] = len(text)
        return place

    def siblings(self, places: np.ndarray) -> np.ndarray:
        """[B, 2·NEIGHBOURS] the neighbours of each text in the order of their prompts' tokens.

        There, texts that begin alike stand together. The nearest come last; -1 is none.
        """
        if not self._order:
            return np.full((len(places), 2 * NEIGHBOURS), -1, dtype=np.int64)
        order = np.array([place for _, place in self._order], dtype=np.int64)
        rank = np.full(len(self.lengths), -1, dtype=np.int64)
        rank[order] = np.arange(len(order))
        apart = [step for near in range(NEIGHBOURS, 0, -1) for step in (-near, near)]
        at = rank[places][:, None] + np.array(apart)
        known = (places[:, None] >= 0) & (at >= 0) & (at < len(order))
        return np.where(known, order[np.where(known, at, 0)], -1)


@njit
def followed(
    tokens: np.ndarray,
    known: np.ndarray,
    current: np.ndarray,
    elsewhere: np.ndarray,
    table: np.ndarray,
    lengths: np.ndarray,
    grown: np.ndarray,
) -> np.ndarray:
    """[B] the place of each row, -1 if it has none; `current` were those of the last batch.

    A row goes on with a text that it begins with: the one of the same row in the last batch, or the
    first that fits of `elsewhere`: of the other rows, and of all places, since vLLM does not show
    every step, and takes requests out of its batch when memory or its budget of tokens ends. What
    is new of it is written to `tokens` and counted in `known`.
    """
    places = np.full(len(lengths), -1, dtype=np.int64)
    free = known.copy()  # 0 if a row has been found to go on
    for row in range(len(lengths)):
        before = lengths[row] - grown[row]
        found = current[row] if row < len(current) else -1
        if not _goes_on(found, tokens, free, table[row, :before]):
            found = -1
            for place in elsewhere:
                if _goes_on(place, tokens, free, table[row, :before]):
                    found = place
                    break
        if found >= 0:
            for at in range(known[found], lengths[row]):
                tokens[found, at] = table[row, at]
            known[found], free[found], places[row] = lengths[row], 0, found
    return places


@njit
def _goes_on(place: int, tokens: np.ndarray, lengths: np.ndarray, text: np.ndarray) -> bool:
    """Whether a text begins with what a place holds, which is something."""
    if place < 0 or not 0 < lengths[place] <= len(text):
        return False
    end = lengths[place]
    if tokens[place, end - 1] != text[end - 1]:
        return False  # spares the comparison of most
    return bool(np.array_equal(tokens[place, :end], text[:end]))

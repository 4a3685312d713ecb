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
        lengths: [rows + REMEMBERED] how much of it; 0 where it holds nothing.
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
        places = followed(self.tokens, self.lengths, self._current, table, lengths, grown)
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
    table: np.ndarray,
    lengths: np.ndarray,
    grown: np.ndarray,
) -> np.ndarray:
    """[B] the place of each row of a batch, given those of the last batch; -1 where it has none.

    A row goes on with a text that it begins with: the one of the same row in the last batch, of
    another row, or one that was left out for some steps (vLLM does not show every step, and takes
    requests out of its batch when memory or its budget of tokens ends). What is new of it is
    written to `tokens` and counted in `known`.
    """
    places = np.full(len(lengths), -1, dtype=np.int64)
    taken = np.zeros(len(known), dtype=np.bool_)
    for row in range(len(lengths)):
        before = lengths[row] - grown[row]
        for guess in range(-1, len(current) + len(known)):
            if guess < 0:
                place = current[row] if row < len(current) else -1
            elif guess < len(current):
                place = current[guess]
            else:
                place = guess - len(current)
            if place < 0 or taken[place] or not 0 < known[place] <= before:
                continue
            end = known[place]
            if tokens[place, end - 1] != table[row, end - 1]:
                continue  # spares the comparison of most
            if not np.array_equal(tokens[place, :end], table[row, :end]):
                continue
            places[row], taken[place] = place, True
            for at in range(end, lengths[row]):
                tokens[place, at] = table[row, at]
            known[place] = lengths[row]
            break
    return places

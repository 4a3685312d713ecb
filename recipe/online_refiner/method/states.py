"""In which of its own states the policy is asked for a token of a', if it feeds itself.

The state of step s of a (T steps) is (s0, a_<s): the policy is about to choose a_s. No step follows
the last token of a, so there is no term beyond min(T, U) for the U tokens of a'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recipe.online_refiner.choices import Tokens

NO_STATE = -1

Sources = Sequence[tuple[int, int]]


def states_of(copied: Sequence[int], sources: Sources, steps: int, which: Tokens) -> list[int]:
    """For each token of a' the step of a in whose state it is asked for, or NO_STATE.

    By position, token t in the state of step t (arXiv 2603.18088 in its likeliest reading); for
    `tokens: aligned` (ours) in the state before the token of a that it copies or replaces.

    Args:
        copied, sources: of the diff from a to a', see `refiner_worker.diff.TokenDiff`.
        steps: T, the tokens of a.
    """
    if which is not Tokens.ALIGNED:
        inside = min(len(copied), steps)
        return [*range(inside), *[NO_STATE] * (len(copied) - inside)]
    return [state if state < steps else NO_STATE for state in _aligned(copied, sources)]


def _aligned(copied: Sequence[int], sources: Sources) -> list[int]:
    """At most one token a state, and at most one state a token.

    A copied token has the state of its source; the k-th token of a replaced hunk the k-th state of
    the hunk while it lasts; the first token of an insertion the state that it is inserted at, where
    it takes the place of the copied token.
    """
    starts = [start for start, _ in sources]
    states: list[int] = []
    after = 0  # the step of a after the last copied token
    taken = NO_STATE  # the last state of the hunk before
    for first, end in _runs(copied):
        if copied[first]:
            states += starts[first:end]
            if starts[first] == taken:
                states[first] = NO_STATE
            after = sources[end - 1][1]
        else:
            # Replaced is what lies between the neighbours. If nothing does, the run was inserted,
            # and the state before its right neighbour is open to it. The diff gives an insertion
            # the token before it, and at the start the first one, whose state is the one open.
            inserted = starts[first] < after
            open_states = 1 if inserted else sources[first][1] - after
            inside = min(open_states, end - first)
            states += [*range(after, after + inside), *[NO_STATE] * (end - first - inside)]
            taken = after + inside - 1
    return states


def _runs(flags: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of equal neighbours among flags of 0 and 1."""
    start, length = 0, len(flags)
    while start < length:
        try:
            end = flags.index(1 - flags[start], start)
        except ValueError:
            end = length
        yield start, end
        start = end

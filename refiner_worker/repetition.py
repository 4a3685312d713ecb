"""Whether an output that did not end was caught in a loop."""

from collections.abc import Sequence

LEAST_TIMES = 4
LEAST_TOKENS = 16
LONGEST_PERIOD = 64


def loops(token_ids: Sequence[int]) -> bool:
    """Whether the last tokens are one stretch over and over.

    It must stand there 4 times and fill 16 tokens or more, and be at most 64 tokens long. Ours.
    """
    for period in range(1, LONGEST_PERIOD + 1):
        length = max(LEAST_TIMES * period, LEAST_TOKENS)
        tail = token_ids[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            return True
    return False

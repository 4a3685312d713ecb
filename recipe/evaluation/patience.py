"""How long a server is waited for, and how often it is asked again. Pure but for the clock.

A response has one budget of time for all its attempts. Between them the wait doubles; a server that
says how long to wait (`Retry-After`) is obeyed, by all requests and not only the one it told.
"""

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from recipe.evaluation.errors import EvaluationError

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_MALFORMED = 3  # replies in another form than asked for, after which asking again is of no use


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        attempt_s: for the reply to one attempt.
        total_s: for one response, all attempts and the waits between them together.
        first_wait_s: before the second attempt; it doubles from there.
    """

    attempt_s: float = 600.0
    total_s: float = 1800.0
    first_wait_s: float = _FIRST_WAIT_S

    def __post_init__(self) -> None:
        for key, value in (("request-timeout", self.attempt_s), ("retry-for", self.total_s)):
            if not value > 0:
                raise EvaluationError(f"--{key} {value}: use a number of seconds above 0")


class Attempts:
    """The attempts at one response: what time is left, and how long to wait for the next."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._started = time.monotonic()
        self._failed = self._malformed = 0

    @property
    def started(self) -> float:
        """When, by the monotonic clock."""
        return self._started

    @property
    def timeout_s(self) -> float:
        """For the next attempt."""
        return max(0.001, min(self._patience.attempt_s, self._left_s()))

    def wait_s(self, at_least_s: float, *, malformed: bool) -> float | None:
        """The wait after a failed attempt, or None if there is to be no other.

        It is the server's (`at_least_s`), or ours if that is longer, with up to a half added at
        random so that requests that failed together do not come back together.
        """
        self._failed += 1
        self._malformed += malformed
        doubled = self._patience.first_wait_s * 2.0 ** min(self._failed - 1, 16)
        ours = min(doubled, _LONGEST_WAIT_S) * random.uniform(1.0, 1.5)
        wait = max(ours, at_least_s)
        enough = self._malformed >= _MALFORMED or wait >= self._left_s()
        return None if enough else wait

    def _left_s(self) -> float:
        return self._started + self._patience.total_s - time.monotonic()


def retry_after_s(header: str | None, now: datetime | None = None) -> float:
    """The seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3); 0 if it says nothing.

    It is a number of seconds or a date.
    """
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())

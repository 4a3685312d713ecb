"""How long a server is waited for."""

from datetime import UTC, datetime

import pytest

from recipe.evaluation import patience
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.patience import Attempts, Patience, retry_after_s

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, 0.0),
        ("", 0.0),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Fri, 02 Jan 2026 12:01:30 GMT", 90.0),
        ("Fri, 02 Jan 2026 11:00:00 GMT", 0.0),  # past
        ("soon", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float) -> None:
    assert retry_after_s(header, NOON) == expected


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the only entry of a list."""
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.random, "uniform", lambda low, high: low)
    return now


def test_waits_double_up_to_a_minute_and_the_servers_own_wait_counts_if_it_is_longer(
    clock: list[float],
) -> None:
    attempts = Attempts(Patience(total_s=1e6))
    waits = [attempts.wait_s(0.0, malformed=False) for _ in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert attempts.wait_s(90.0, malformed=False) == 90
    assert attempts.wait_s(5.0, malformed=False) == 60


def test_all_attempts_share_one_budget(clock: list[float]) -> None:
    attempts = Attempts(Patience(attempt_s=60.0, total_s=100.0))
    assert attempts.timeout_s == 60
    clock[0] = 70.0
    assert attempts.timeout_s == 30
    assert attempts.wait_s(29.0, malformed=False) == 29
    assert attempts.wait_s(30.0, malformed=False) is None  # no time would be left for the attempt
    clock[0] = 99.5
    assert attempts.wait_s(0.0, malformed=False) is None


def test_replies_of_another_form_are_asked_for_twice_more(clock: list[float]) -> None:
    attempts = Attempts(Patience())
    found = [attempts.wait_s(0.0, malformed=True) is None for _ in range(3)]
    assert found == [False, False, True]


def test_times_must_be_above_zero() -> None:
    with pytest.raises(EvaluationError, match="--retry-for 0: use a number of seconds above 0"):
        Patience(total_s=0)
    with pytest.raises(EvaluationError, match="--request-timeout nan"):
        Patience(attempt_s=float("nan"))

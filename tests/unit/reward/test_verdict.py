"""The verdict algebra and the tiers."""

import pytest

from reward.verdict import Tiers, Verdict, combine, score

V = Verdict


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([V.ACCEPTED, V.ACCEPTED], V.ACCEPTED),
        ([V.ACCEPTED, V.WRONG_ANSWER], V.WRONG_ANSWER),
        ([V.WRONG_ANSWER, V.RUNTIME_ERROR], V.RUNTIME_ERROR),
        ([V.TIME_LIMIT, V.RUNTIME_ERROR], V.RUNTIME_ERROR),
        ([V.WRONG_ANSWER, V.TIME_LIMIT, V.ACCEPTED], V.TIME_LIMIT),
        ([V.COMPILE_ERROR, V.TIME_LIMIT], V.COMPILE_ERROR),
        ([V.ACCEPTED, V.INTERNAL_ERROR, V.RUNTIME_ERROR], V.INTERNAL_ERROR),
    ],
)
def test_the_gravest_verdict_wins(verdicts: list[Verdict], expected: Verdict) -> None:
    assert combine(verdicts) == expected
    assert combine(reversed(verdicts)) == expected


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (V.COMPILE_ERROR, -1.0),
        (V.RUNTIME_ERROR, -0.6),
        (V.TIME_LIMIT, -0.6),
        (V.MEMORY_LIMIT, -0.6),
        (V.OUTPUT_LIMIT, -0.6),
        (V.WRONG_ANSWER, -0.3),
        (V.ACCEPTED, 1.0),
        (V.INTERNAL_ERROR, 0.0),
    ],
)
def test_tiers(verdict: Verdict, expected: float) -> None:
    assert score(verdict, 3, 4, Tiers(), adaptive=False) == expected


def test_the_adaptive_term_grows_from_wrong_answer_towards_accepted() -> None:
    scores = [score(V.WRONG_ANSWER, passed, 13, Tiers(), adaptive=True) for passed in (0, 1, 10)]
    assert scores == pytest.approx([-0.3, -0.2, 0.7])


def test_the_adaptive_term_touches_no_other_tier() -> None:
    assert score(V.RUNTIME_ERROR, 3, 4, Tiers(), adaptive=True) == -0.6
    assert score(V.ACCEPTED, 4, 4, Tiers(), adaptive=True) == 1.0
    assert score(V.INTERNAL_ERROR, 3, 4, Tiers(), adaptive=True) == 0.0

"""What the refiner is told of the judge's verdict."""

from typing import Any

import pytest

from recipe.online_refiner.choices import Feedback
from recipe.online_refiner.refine.feedback import feedback_text
from recipe.online_refiner.scores import score_of

EXTRAS = {
    "score": -0.3,
    "verdict": "wrong_answer",
    "passed": 2,
    "total": 5,
    "failing_test": "input:\n1\nexpected:\n2",
}


@pytest.mark.parametrize(
    ("kind", "extras", "text"),
    [
        ("none", EXTRAS, ""),
        ("verdict", EXTRAS, "Verdict: wrong answer. Tests passed: 2 of 5."),
        (
            "failing_test",
            EXTRAS,
            "Verdict: wrong answer. Tests passed: 2 of 5.\n"
            "The first test that fails:\ninput:\n1\nexpected:\n2",
        ),
        (
            "failing_test",
            EXTRAS | {"failing_test": ""},
            "Verdict: wrong answer. Tests passed: 2 of 5.",
        ),
        ("verdict", {"score": 0.25}, "Score: 0.25."),
        ("verdict", {"acc": 0.25}, "Score: 0.25."),
    ],
)
def test_no_more_is_told_than_was_asked_for(kind: str, extras: dict[str, Any], text: str) -> None:
    assert feedback_text(Feedback(kind), extras, score_of(extras)) == text

"""What the refiner is told of a rollout beside its text (`refiner.feedback`).

The paper's refiner sees problem and response alone; what the judge found is an ablation, ours.
It reaches the refiner's prompt only: the policy is trained on s0, which has none of it.
"""

from collections.abc import Mapping
from typing import Any

from recipe.online_refiner.choices import FAILING_TEST_KEY, Feedback
from recipe.online_refiner.records import Score


def feedback_text(kind: Feedback, extras: Mapping[str, Any], score: Score) -> str:
    """The sentences that stand for `{feedback}` in the refiner's template; empty for `none`.

    Args:
        extras: what the reward function returned: `verdict`, `passed` and `total`, and
            `failing_test` where it has one.
        score: of these.
    """
    if kind is Feedback.NONE:
        return ""
    verdict = score.verdict.replace("_", " ")
    text = f"Verdict: {verdict}." if verdict else f"Score: {score.reward:g}."
    if extras.get("total"):
        text += f" Tests passed: {int(extras.get('passed', 0))} of {int(extras['total'])}."
    test = str(extras.get(FAILING_TEST_KEY, ""))
    if kind is Feedback.FAILING_TEST and test:
        text += f"\nThe first test that fails:\n{test}"
    return text

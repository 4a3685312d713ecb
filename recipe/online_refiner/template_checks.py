"""Start-up checks of what the refiner is shown: `template`, `feedback`, `block_tokens`."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from recipe.online_refiner.feedback import Feedback
from recipe.online_refiner.settings import Settings
from refiner_worker.prompts import BEFORE, FEEDBACK, RefineTemplate

TELLS_TESTS = "pkg://reward.apps"
"""The reward function that can tell the first failing test."""
TELLS_NO_VERDICT = "pkg://reward.dialogue"


def check_template_use(
    config: DictConfig, settings: Settings, template: RefineTemplate
) -> Iterator[str]:
    """A template must show what there is to show, and nothing that there is not."""
    refiner = settings.refiner
    named = f"refiner.template={refiner.template!r}"
    told = refiner.feedback is not Feedback.NONE
    if told and not template.takes(FEEDBACK):
        yield (
            f"refiner.feedback={refiner.feedback}: {named} has no {FEEDBACK}, so the refiner would "
            "not be told. Fix: refiner.template=code-feedback-v1, or a file of your own with it"
        )
    if template.takes(FEEDBACK) and not told:
        yield (
            f"{named} has {FEEDBACK}, which would stand empty with refiner.feedback=none. "
            "Fix: refiner.feedback=verdict or failing_test, or another template"
        )
    blocks = refiner.block_tokens is not None
    if blocks and not template.takes(BEFORE):
        yield (
            f"refiner.block_tokens={refiner.block_tokens}: {named} has no {BEFORE}, so a block "
            "would be refined without what precedes it. Fix: refiner.template=code-blocks-v1, or "
            "a file of your own with it"
        )
    if template.takes(BEFORE) and not blocks:
        yield (
            f"{named} has {BEFORE}, which would stand empty with refiner.block_tokens=null. "
            "Fix: refiner.block_tokens=512, or another template"
        )
    yield from _check_feedback(config, refiner.feedback)


def _check_feedback(config: DictConfig, feedback: Feedback) -> Iterator[str]:
    path = config.reward.custom_reward_function.path
    if feedback is Feedback.FAILING_TEST and path != TELLS_TESTS:
        yield (
            f"refiner.feedback={feedback}: reward.custom_reward_function.path={path!r} does not "
            f"tell the first failing test; {TELLS_TESTS} does. Fix: refiner.feedback=verdict"
        )
    if feedback is Feedback.VERDICT and path == TELLS_NO_VERDICT:
        yield (
            f"refiner.feedback={feedback}: reward.custom_reward_function.path={path!r} gives a "
            "score and no verdict. Fix: refiner.feedback=none"
        )

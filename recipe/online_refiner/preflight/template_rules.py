"""Rules on what the refiner is shown: `template`, `feedback`, `block_tokens`."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.online_refiner.choices import Feedback
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.prompt_rules import chat_of
from refiner_worker.prompts import (
    BEFORE,
    FEEDBACK,
    RefineTemplate,
    builtin_templates,
    load_template,
    render,
)
from reward.traits import traits_of


def check_template(plan: RunPlan) -> Iterator[str]:
    """The template can be read, and shows what there is to show."""
    try:
        template = load_template(plan.settings.refiner.template)
    except (ValueError, OSError) as error:
        yield f"refiner.template={plan.settings.refiner.template!r}: {error}"
        return
    if plan.refines:
        yield from _check_use(plan, template)
        yield from _check_task(plan, template)
        yield from _check_feedback(plan)


def _check_use(plan: RunPlan, template: RefineTemplate) -> Iterator[str]:
    """A template must show what there is to show, and nothing that there is not."""
    refiner = plan.settings.refiner
    named = f"refiner.template={refiner.template!r}"
    told = refiner.feedback is not Feedback.NONE
    if told and not template.takes(FEEDBACK):
        yield (
            f"refiner.feedback={refiner.feedback}: {named} has no {FEEDBACK}, so the refiner would "
            f"not be told. Fix: {_fitting(plan)}"
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
            f"would be refined without what precedes it. Fix: {_fitting(plan)}"
        )
    longest = plan.config.data.max_response_length
    if refiner.block_tokens is not None and refiner.block_tokens >= longest:
        yield (
            f"refiner.block_tokens={refiner.block_tokens}: a response has at most {longest} tokens "
            "(data.max_response_length), so it would be one block with nothing before it. Fix: "
            f"refiner.block_tokens={max(1, longest // 4)}, or null with a template without {BEFORE}"
        )
    if template.takes(BEFORE) and not blocks:
        yield (
            f"{named} has {BEFORE}, which would stand empty with refiner.block_tokens=null. "
            "Fix: refiner.block_tokens=512, or another template"
        )


def _check_task(plan: RunPlan, template: RefineTemplate) -> Iterator[str]:
    """A template that speaks of programs is not shown a proof, nor the other way round."""
    path, refiner = plan.config.reward.custom_reward_function.path, plan.settings.refiner
    judged = traits_of(path).task
    if not (template.task and judged and template.task != judged):
        return
    yield (
        f"refiner.template={refiner.template!r} is for {template.task}, and "
        f"reward.custom_reward_function.path={path!r} judges {judged}. Fix: {_fitting(plan)}"
    )


def _fitting(plan: RunPlan) -> str:
    """Built-in templates for the task that show what there is to show."""
    refiner = plan.settings.refiner
    task = traits_of(plan.config.reward.custom_reward_function.path).task
    fitting = [
        one.name
        for one in map(load_template, builtin_templates())
        if one.task and task in ("", one.task)
        and one.takes(BEFORE) == (refiner.block_tokens is not None)
        and one.takes(FEEDBACK) == (refiner.feedback is not Feedback.NONE)
    ]  # fmt: skip
    built_in = [f"refiner.template={' or '.join(fitting)}"] if fitting else []
    return ", or ".join([*built_in, "a template file of your own"])


def _check_feedback(plan: RunPlan) -> Iterator[str]:
    feedback, path = plan.settings.refiner.feedback, plan.config.reward.custom_reward_function.path
    traits = traits_of(path)
    declared = "TRAITS of its module (reward.traits.RewardTraits) say"
    if feedback is Feedback.FAILING_TEST and not traits.failing_test_setting:
        yield (
            f"refiner.feedback={feedback}: reward.custom_reward_function.path={path!r} does not "
            f"tell the first failing test, as {declared}. Fix: refiner.feedback=verdict"
        )
    if feedback is Feedback.VERDICT and not traits.tells_verdict:
        yield (
            f"refiner.feedback={feedback}: reward.custom_reward_function.path={path!r} gives a "
            f"score and no verdict, as {declared}. Fix: refiner.feedback=none"
        )


def check_template_budget(plan: RunPlan) -> Iterator[str]:
    """The template's own words leave room for a problem and a response."""
    chat = chat_of(plan)
    if not plan.refines or chat is None or any(check_template(plan)):
        return
    messages = render(
        load_template(plan.settings.refiner.template), [{"role": "user", "content": ""}], ""
    )
    words = len(chat.prompt_ids(messages))
    limit = plan.limits.max_prompt_tokens
    if words >= limit:
        yield (
            f"refiner.max_prompt_length={limit}: the words of refiner.template="
            f"{plan.settings.refiner.template!r} alone take {words} tokens, so nothing could be "
            f"refined. Fix: raise it to {words} plus a prompt and a response"
        )

"""Keys of `constraint` that are set and make no difference to the constraint that is chosen."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.online_refiner.choices import Schedule
from recipe.online_refiner.plan import RunPlan


def unread(plan: RunPlan, key: str, default: object, reason: str) -> Iterator[str]:
    """A warning if this key of the section has another value than its default.

    Args:
        reason: why it is not read, and what is read in its place.
    """
    value = plan.config.constraint[key]
    if value != default:
        yield f"constraint.{key}={value} is not read: {reason}"


def schedule_faults(plan: RunPlan) -> Iterator[str]:
    """A λ at the last step that is never reached, or a schedule that leads nowhere."""
    section, given = plan.settings.constraint, plan.config.constraint.lambda_end
    if section.schedule is Schedule.CONSTANT and section.lambda_end != section.lambda_:
        yield (
            f"constraint.lambda_end={section.lambda_end:g} with constraint.schedule=constant: λ "
            f"stays {section.lambda_:g}. Fix: constraint.schedule=linear, cosine or adaptive, or "
            "constraint.lambda_end=null"
        )
    if section.schedule in (Schedule.LINEAR, Schedule.COSINE) and given is None:
        yield (
            f"constraint.schedule={section.schedule} with constraint.lambda_end=null: λ stays "
            f"{section.lambda_:g}. Fix: constraint.lambda_end=0, or constraint.schedule=constant"
        )

"""Which constraint acts in a run, with which weight: for tables, and for choosing what is shown."""

from collections.abc import Sequence

from recipe.analysis.configuration import number_text
from recipe.analysis.runs import Run, group_by_arm

KINDS = ("dynamic", "distill", "static_kl", "chord", "none")
BY_REFINEMENTS = ("dynamic", "distill")


def kind_of(run: Run) -> str:
    """The kind of constraint, from run.json, the configuration or the arm's name; else ""."""
    known = run.info.get("kind") or run.configuration.get("constraint.kind")
    if known:
        return str(known)
    return next((kind for kind in KINDS if run.arm.startswith(kind)), "")


def learns_from_refinements(run: Run) -> bool:
    """Whether refinements constrain the policy, rather than only being observed."""
    return kind_of(run) in BY_REFINEMENTS


def acting_first(runs: Sequence[Run]) -> list[Run]:
    """All runs, those that learn from refinements first, each part in the order of reports."""
    ordered = [run for members in group_by_arm(runs).values() for run in members]
    return sorted(ordered, key=lambda run: not learns_from_refinements(run))


def weight_of(run: Run) -> str:
    """The weight of the constraint that acts, in words; empty if none does or it is unknown."""
    kind = kind_of(run)
    if kind in BY_REFINEMENTS:
        value = run.info.get("lambda", run.configuration.get("constraint.lambda"))
        return "" if value is None else f"λ = {number_text(value)}"
    if kind == "static_kl":
        value = run.configuration.get("constraint.static_kl.coef")
        return "" if value is None else f"KL coefficient {number_text(value)}"
    if kind == "chord":
        peak, valley = (run.configuration.get(f"constraint.chord.{k}") for k in ("peak", "valley"))
        return f"µ {number_text(peak)} to {number_text(valley)}" if peak and valley else ""
    return ""


def reduction_of(run: Run) -> str:
    """Whether the penalty of a rollout is a sum over tokens or a mean of them."""
    configured = run.configuration.get("constraint.reduce", "null")
    if configured in ("sum", "mean"):
        return configured
    inject = run.info.get("inject") or run.configuration.get("constraint.inject")
    return "mean" if inject == "sft" else "sum"

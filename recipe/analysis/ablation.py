"""Ablations: runs whose configurations differ in one key alone (paper, figure 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipe.analysis.acting import BY_REFINEMENTS
from recipe.analysis.configuration import differences
from recipe.analysis.curves import curves_sheet
from recipe.analysis.derived import UNCONSTRAINED, comparable
from recipe.analysis.names import LABELS
from recipe.analysis.panels import CROSS_ENTROPY, KL, REWARD, VALIDATION
from recipe.analysis.runs import Run
from recipe.analysis.sheets import Sheet
from recipe.analysis.unread_keys import default_of

PANELS = (REWARD, VALIDATION, KL, CROSS_ENTROPY)
MOST_ABLATIONS = 6
KIND = "constraint.kind"
WORDS = {"constraint.lambda": "λ", "constraint.filter": "the filter"}
"""Keys that the paper ablates, first in the report, and their names in a sentence."""


@dataclass(frozen=True)
class Ablation:
    """`groups` are runs by the value of `key` that they have; runs without constraint that differ
    in nothing else come first under their arm's name.
    """

    key: str
    where: str
    groups: Mapping[str, Sequence[Run]]

    @property
    def name(self) -> str:
        """The key as a reader is told it."""
        return "λ" if self.key == "constraint.lambda" else self.key.rpartition(".")[2]


def find_ablations(runs: Sequence[Run]) -> tuple[Ablation, ...]:
    """Every group of configured runs of one setting that differ in one key alone, the kind of
    constraint apart; those that the paper has come first.
    """
    known = [run for run in runs if run.configuration]
    families: dict[str, list[list[Run]]] = {}
    for index, run in enumerate(known):
        for other in known[:index]:
            keys = list(differences(other, run)) if run.setting == other.setting else []
            if len(keys) == 1 and keys[0] != KIND and not _inert(keys[0], run):
                _join(families.setdefault(keys[0], []), other, run)
    order = [key for key in WORDS if key in families] + sorted(families.keys() - WORDS)
    found = [_ablation(key, members, known) for key in order for members in families[key]]
    return tuple(found[:MOST_ABLATIONS])


def _inert(key: str, run: Run) -> bool:
    """Whether the key belongs to a constraint that this run does not have."""
    kind = run.configuration.get(KIND)
    if key.startswith("constraint.") and kind == UNCONSTRAINED:
        return True
    return key == "constraint.lambda" and kind not in BY_REFINEMENTS


def _join(families: list[list[Run]], first: Run, second: Run) -> None:
    """Add two runs that differ in the key alone to the family that holds either, or to a new
    one; seeds of one value follow, since they differ from the other value in that key alone too.
    """
    for family in families:
        if first in family or second in family:
            family += [run for run in (first, second) if run not in family]
            return
    families.append([first, second])


def _ablation(key: str, members: Sequence[Run], runs: Sequence[Run]) -> Ablation:
    values = sorted({_value(run, key) for run in members}, key=_order)
    name = "λ = {}" if key == "constraint.lambda" else key.rpartition(".")[2] + ": {}"
    groups = {
        name.format(value): [run for run in runs if run in members and _value(run, key) == value]
        for value in values
    }
    plain = [run for run in runs if run.arm == UNCONSTRAINED and run not in members]
    plain = [run for run in plain if comparable(run, members[0])]
    if plain and key.startswith("constraint."):
        groups = {UNCONSTRAINED: plain, **groups}
    return Ablation(key, _words(members[0], key), groups)


def _value(run: Run, key: str) -> str:
    """A version without the key did what later ones do by default."""
    return run.configuration.get(key, default_of(key))


def _order(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, value


def _words(run: Run, key: str) -> str:
    """Which runs these are: setting and arm, or what the constraint is apart from the key."""
    parts = [run.setting] if run.setting else []
    kind = run.configuration.get(KIND, "")
    others = [name for name in ("inject", "filter", "lambda") if f"constraint.{name}" != key]
    if kind == "dynamic":
        parts += [f"{name}: {_value(run, f'constraint.{name}')}" for name in others]
    else:
        parts.append(LABELS.get(run.arm, run.arm))
    return ", ".join(parts).replace("lambda: ", "λ: ")


def ablation_sheets(ablations: Sequence[Ablation]) -> tuple[Sheet, ...]:
    """One figure an ablation."""
    return tuple(
        curves_sheet(
            [run for runs in item.groups.values() for run in runs],
            PANELS,
            f"ablation-{item.key.rpartition('.')[2]}-{number}",
            f"{item.name[0].upper()}{item.name[1:]} ablation ({item.where})",
            f"As the paper's figure 7. Runs whose configurations differ in {item.key} alone.",
            item.groups,
        )
        for number, item in enumerate(ablations, start=1)
    )


def absent_ablations(ablations: Sequence[Ablation], runs: Sequence[Run]) -> tuple[str, ...]:
    """What a reader is told if there is nothing to draw, and what else differs between runs that
    come closest.
    """
    drawn = {item.key for item in ablations}
    return tuple(
        f"No two of these runs differ in {words} alone: nothing to draw. "
        + (_closest(runs, key) or f"For it, train with {key}=… at several values.")
        for key, words in WORDS.items()
        if key not in drawn
    )


def _closest(runs: Sequence[Run], key: str) -> str:
    """The fewest keys that differ beside this one between two dynamic runs."""
    dynamic = [run for run in runs if run.configuration.get(KIND) == "dynamic"]
    found: list[list[str]] = [
        sorted(set(keys) - {key})
        for index, run in enumerate(dynamic)
        for other in dynamic[:index]
        if key in (keys := differences(other, run))
    ]
    if not found:
        return ""
    closest = min(found, key=lambda keys: len(keys))
    return f"Those that differ in it also differ in {', '.join(closest)}."

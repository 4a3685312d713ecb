"""What self-feeding costs: labels on the policy's own rows, on verl's own engine.

    eval "$(python -m recipe.cpu)" && python scripts/bench/self_feeding.py [--turns 40]

Per turn, in this process's CPU seconds on one thread: the pass for the old log-probs and the
update, each plain and with labels, in an order that alternates. `in the hook` is what the labels'
own code takes within it, timed around it, and `Python` what making them takes before it, medians;
`with labels` is the difference to the plain one of the same turn: the mean of the middle half of
the turns, which a pause of the machine does not reach, with its standard error. All are shares of a
plain update (its median). Rows and passes are counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from constraint import (
    Engine,
    Row,
    accepted_of,
    policy_rows,
    rollouts,
    settings,
    timed,
)

from recipe.online_refiner.choices import (
    LABEL_FIELD,
    MEASURE,
    NO_LABEL,
    NUMBER_FIELD,
    Conditioning,
    Inject,
    Tokens,
)
from recipe.online_refiner.method.dynamic_sft import weighted_labels
from recipe.online_refiner.method.labels import RowLabels, labels_of
from recipe.online_refiner.queue.label_fields import label_values, row_numbers
from recipe.online_refiner.records import Rollout
from recipe.online_refiner.update import loss
from recipe.online_refiner.update.logit_layout import HOOK

ACCEPTED_PERCENT = (10, 50, 100)
MEASURING = HOOK | {"compute_loss": True, MEASURE: True}
HEAD = """\
| accepted | labels | pass: in the hook | Python | pass with labels \
| update: in the hook | Python | update with labels |
|---:|---:|---:|---:|---:|---:|---:|---:|"""


@dataclass
class Hook:
    """CPU seconds within `label_margins`, which is wrapped."""

    seconds: list[float] = field(default_factory=list)

    def wrapped(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed_work(*args: Any) -> Any:
            start = time.process_time()
            result = work(*args)
            self.seconds.append(time.process_time() - start)
            return result

        return timed_work

    def taken(self) -> float:
        """Since it was last asked."""
        total = sum(self.seconds)
        self.seconds.clear()
        return total


class Turn(NamedTuple):
    """CPU seconds of one turn."""

    forward: float
    forward_labelled: float
    forward_hook: float
    forward_python: float
    update: float
    update_labelled: float
    update_hook: float
    update_python: float


SELF_FED = {"conditioning": Conditioning.SELF_FEEDING}
PENALTY = settings(Inject.ADVANTAGE, **SELF_FED)
SUPERVISED = settings(Inject.SFT, tokens=Tokens.ALIGNED, **SELF_FED)


def measured_labels(rows: Sequence[Rollout]) -> list[RowLabels]:
    """What a penalty asks for: every token of a' by position."""
    return labels_of(accepted_of(rows, PENALTY))


def learnt_labels(rows: Sequence[Rollout]) -> list[RowLabels]:
    """What the supervised term asks for: aligned tokens, weighted."""
    return weighted_labels(accepted_of(rows, SUPERVISED), SUPERVISED, 1.0, len(rows))


def lay(made: Sequence[Row], rows: Sequence[Rollout], labels: Sequence[RowLabels]) -> None:
    """Give the policy's rows the fields that the loss reads labels from, as the trainer does."""
    keys, lengths = [row.key for row in rows], [len(row.response_ids) for row in rows]
    offsets = torch.tensor([0, *lengths]).cumsum(dim=0)
    values = label_values(keys, offsets, labels).split(lengths)
    numbers = row_numbers(keys, labels, first_number=1)
    weighted = any(one.weights is not None for one in labels)
    for fields, value, number in zip(made, values, numbers, strict=True):
        fields[LABEL_FIELD] = value
        if weighted:
            fields[NUMBER_FIELD] = number


def labelled(
    rows: Sequence[Rollout], labels: Callable[[Sequence[Rollout]], Sequence[RowLabels]]
) -> tuple[float, list[Row]]:
    """CPU seconds of making the labels, and the policy's rows with them."""
    made = policy_rows(rows, weighted=False)
    seconds, _ = timed(lambda: lay(made, rows, labels(rows)))
    return seconds, made


def take_turn(engine: Engine, hook: Hook, rows: Sequence[Rollout], plain_first: bool) -> Turn:
    plain = policy_rows(rows, weighted=False)
    for_pass, asked = labelled(rows, measured_labels)
    for_update, taught = labelled(rows, learnt_labels)
    works: list[Callable[[], Any]] = [
        lambda: engine.pass_over(plain, compute_loss=False),
        lambda: engine.pass_over(asked, **MEASURING),
        lambda: engine.update(plain, len(plain)),
        lambda: engine.update(taught, len(taught), **HOOK),
    ]
    found: dict[int, tuple[float, float]] = {}
    for index in (0, 1, 2, 3) if plain_first else (1, 0, 3, 2):
        hook.taken()
        seconds, _ = timed(works[index])
        found[index] = (seconds, hook.taken())
    return Turn(
        *(found[0][0], *found[1], for_pass),
        *(found[2][0], *found[3], for_update),
    )


def check(engine: Engine, rows: Sequence[Rollout]) -> None:
    """What is claimed whatever the clock says: no row and no pass more than without labels."""
    plain = policy_rows(rows, weighted=False)
    (_, asked), (_, taught) = labelled(rows, measured_labels), labelled(rows, learnt_labels)
    seen = []
    for work in (
        lambda: (engine.pass_over(plain, compute_loss=False), engine.update(plain, len(plain))),
        lambda: (engine.pass_over(asked, **MEASURING), engine.update(taught, len(plain), **HOOK)),
    ):
        with engine.counting() as forwarded:
            work()
        seen.append(forwarded)
    assert seen[0] == seen[1], seen


def middle_mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean without the smallest and the largest quarter, and its standard error.

    The error is that of a trimmed mean: from the values with each quarter put at its inner edge.
    """
    ordered, cut = sorted(values), len(values) // 4
    middle = ordered[cut : len(ordered) - cut]
    winsorized = [middle[0]] * cut + middle + [middle[-1]] * cut
    error = statistics.stdev(winsorized) / (len(middle) / len(values) * len(values) ** 0.5)
    return statistics.mean(middle), error


def report(percent: int, labels: int, turns: Sequence[Turn]) -> str:
    """A row of the table below `HEAD`."""
    update = statistics.median(turn.update for turn in turns)

    def share(part: Callable[[Turn], float]) -> str:
        return f"{statistics.median(part(turn) for turn in turns) / update:.1%}"

    def more(labelled: Callable[[Turn], float], plain: Callable[[Turn], float]) -> str:
        value, error = middle_mean([labelled(turn) - plain(turn) for turn in turns])
        return f"{value / update:+.1%} ± {error / update:.1%}"

    cells = (
        *(f"{percent} %", str(labels)),
        *(share(lambda t: t.forward_hook), share(lambda t: t.forward_python)),
        more(lambda t: t.forward_labelled, lambda t: t.forward),
        *(share(lambda t: t.update_hook), share(lambda t: t.update_python)),
        more(lambda t: t.update_labelled, lambda t: t.update),
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=40, help="rollouts in an update")
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()
    # On one thread, CPU seconds do not hold waiting for another that a busy machine has put aside.
    torch.set_num_threads(1)
    hook = Hook()
    loss.label_margins = hook.wrapped(loss.label_margins)
    engine = Engine()
    print(HEAD)
    for percent in ACCEPTED_PERCENT:
        rows = rollouts(options.rollouts, options.rollouts * percent // 100)
        check(engine, rows)
        turns = [take_turn(engine, hook, rows, turn % 2 == 0) for turn in range(options.turns)]
        asked = sum(int((one.token_ids != NO_LABEL).sum()) for one in measured_labels(rows))
        print(report(percent, asked, turns), flush=True)
    update = statistics.median(turn.update for turn in turns)
    print(f"\n{options.rollouts} rollouts: update {update:.2f} s of CPU, one thread")


if __name__ == "__main__":
    main()

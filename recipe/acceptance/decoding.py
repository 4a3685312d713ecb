"""What was seen of the decoding methods, and the judgement of it. Imports no engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.acceptance.machine import GIB
from recipe.acceptance.results import Check, Status

PLAIN, NGRAM, COPY = "plain", "ngram", "copy"
SPECULATING = (NGRAM, COPY)
TIE_NATS = {"float32": 1e-3, "bfloat16": 0.25}
"""Two tokens whose log-probabilities are closer than this are tied in this precision: bfloat16 has
a step of 0.125 between 16 and 32, where the model's logits are. Ours."""
FEW_ACCEPTED = 0.05
"""Below this share of accepted drafts something is likely broken: a verification that fails looks
like drafts that never stand."""


@dataclass(frozen=True)
class Decoded:
    """All refinements of one size of load, by one decoding method.

    Attributes:
        decoding: its name. in_flight: refinements under way at a time, at most.
        refinements: how many there were. tokens: of all outputs.
        wall_s: median of the turns. passes: forward passes, summed over requests.
        drafted: tokens that were proposed. accepted: those that stood.
        gaps_nats: of each output that is not plain decoding's: how much likelier the best token
            was than the second best where they part.
    """

    decoding: str
    in_flight: int
    refinements: int
    tokens: int
    wall_s: float
    passes: int
    drafted: int
    accepted: int
    gaps_nats: tuple[float, ...]

    @property
    def acceptance(self) -> float:
        return self.accepted / self.drafted if self.drafted else 0.0


@dataclass(frozen=True)
class Slept:
    """An engine that speculates, put to sleep and woken.

    Attributes:
        awake_bytes, asleep_bytes, woken_bytes: in use on the device before, while and after.
        sleep_s, wake_s: how long each took.
        differing: outputs that changed by it, of `refinements`.
    """

    awake_bytes: int
    asleep_bytes: int
    woken_bytes: int
    sleep_s: float
    wake_s: float
    refinements: int
    differing: int


@dataclass(frozen=True)
class DecodingSeen:
    """Everything that `decode.py` measured; `slept` is None if engines cannot sleep."""

    dtype: str
    graphs: bool
    decoded: tuple[Decoded, ...]
    slept: Slept | None

    @classmethod
    def read(cls, path: Path) -> DecodingSeen:
        """From the JSON that `decode.py` writes."""
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            Decoded(**{**row, "gaps_nats": tuple(row["gaps_nats"])}) for row in content["decoded"]
        ]
        slept = content["slept"]
        return cls(
            content["dtype"], content["graphs"], tuple(rows), Slept(**slept) if slept else None
        )

    def loads(self) -> list[int]:
        """How many were under way at a time, ascending."""
        return sorted({row.in_flight for row in self.decoded})

    def row(self, decoding: str, in_flight: int) -> Decoded:
        """What was measured of one method at one load."""
        return next(
            row for row in self.decoded if row.decoding == decoding and row.in_flight == in_flight
        )

    def gain(self, decoding: str, in_flight: int) -> float:
        """Plain decoding's wall time over this one's."""
        return self.row(PLAIN, in_flight).wall_s / self.row(decoding, in_flight).wall_s


def decoding_checks(seen: DecodingSeen) -> list[Check]:
    """A line for each speculating method and each load."""
    return [_speculates(seen, method, load) for method in SPECULATING for load in seen.loads()]


def _speculates(seen: DecodingSeen, decoding: str, in_flight: int) -> Check:
    row, tie = seen.row(decoding, in_flight), TIE_NATS[seen.dtype]
    gain, widest = seen.gain(decoding, in_flight), max(row.gaps_nats, default=0.0)
    unexplained = [gap for gap in row.gaps_nats if gap > tie]
    equal = row.refinements - len(row.gaps_nats)
    figure = (
        f"{gain:.2f} times plain's speed; {row.acceptance:.0%} of {row.drafted} drafted tokens "
        f"accepted; {equal} of {row.refinements} outputs equal"
    )
    if row.gaps_nats:
        figure += f", the others part at a tie of at most {widest:.2g} nats"
    status = Status.PASS
    if not row.drafted or row.acceptance < FEW_ACCEPTED:
        status = Status.WARN
    if unexplained:
        figure += f"; {len(unexplained)} of them are no tie"
        status = Status.FAIL
    return Check(
        f"{decoding}, {in_flight} in flight",
        status,
        figure,
        f"greedy outputs equal, or tied within {tie:g} nats; at least {FEW_ACCEPTED:.0%} accepted",
        {
            "wall_s": row.wall_s,
            "plain_wall_s": seen.row(PLAIN, in_flight).wall_s,
            "gain": gain,
            "acceptance": row.acceptance,
            "tokens_a_pass": row.tokens / row.passes,
            "differing": len(row.gaps_nats),
            "widest_gap_nats": widest,
        },
    )


def copy_check(seen: DecodingSeen) -> list[Check]:
    """Whether `auto` should choose `copy` on this machine."""
    loads = seen.loads()
    gains = {method: [seen.gain(method, load) for load in loads] for method in SPECULATING}
    wins = all(
        ours >= max(1.0, theirs) for ours, theirs in zip(gains[COPY], gains[NGRAM], strict=True)
    )
    parts = [
        f"{load}: {ours:.2f} against {theirs:.2f}"
        for load, ours, theirs in zip(loads, gains[COPY], gains[NGRAM], strict=True)
    ]
    figure = f"plain ÷ copy against plain ÷ ngram, in flight {'; '.join(parts)}"
    return [
        Check(
            "copy is the fastest",
            Status.PASS if wins else Status.WARN,
            figure,
            "copy at least as fast as plain and ngram at each load",
            {"loads": loads, **gains},
        )
    ]


def sleep_check(seen: DecodingSeen) -> list[Check]:
    """Whether a speculating engine gives its memory up and answers as before."""
    name, expected = "sleep and wake with speculation", "half the memory back, outputs unchanged"
    slept = seen.slept
    if slept is None:
        why = "vLLM's CPU build has no sleep mode"
        return [Check(name, Status.NONE, why, expected)]
    given = slept.awake_bytes - slept.asleep_bytes
    holds = given >= slept.awake_bytes / 2 and slept.differing == 0
    figure = (
        f"{slept.awake_bytes / GIB:.1f} GiB awake, {slept.asleep_bytes / GIB:.1f} asleep "
        f"({slept.sleep_s:.1f} s), {slept.woken_bytes / GIB:.1f} woken ({slept.wake_s:.1f} s); "
        f"{slept.differing} of {slept.refinements} outputs changed"
    )
    return [Check(name, Status.PASS if holds else Status.FAIL, figure, expected, vars(slept))]


def parting(one: Sequence[int], other: Sequence[int]) -> int:
    """The first place at which two outputs differ: that of the shorter's end if it begins both."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))

"""DAPO-Math-17k and AIME 2024, or problems in their form, to verl's parquet.

`prepare` writes `train.parquet`, `validation.parquet`, `quarantine.jsonl` (every record left out,
with its reason) and `data_card.json`. The public edition of DAPO-Math-17k has each problem about a
hundred times, and that of AIME 2024 each 32 times: a problem is taken once, repeats are counted.
Rows, repeats and quarantined records add up to what was read; the same sources and options give
the same bytes. Each source is read twice, record by record, so that memory grows with different
problems alone: once to find problems with several answers, once to write.
"""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.data.files import LineFile, RowFile, check_writable, update_json
from recipe.data.math_records import SCHEMA, MathProblem, digest, name_of, to_problem, to_row
from recipe.data.progress import counted
from recipe.data.rows import Malformed
from recipe.data.sources import Item, SourceError, open_files

TRAIN, VALIDATION = "train", "validation"
SPLITS = (VALIDATION, TRAIN)
"""In the order of writing: a training problem is left out if it is one of the validation's."""
DATA_SOURCES = {TRAIN: "math_dapo", VALIDATION: "aime_2024"}
"""By which verl groups its metrics."""


@dataclass(frozen=True)
class PrepareOptions:
    """How records become rows. `max_rows` counts well-formed problems per split; None takes all."""

    max_rows: int | None = None
    max_problem_chars: int = 20_000
    dry_run: bool = False


@dataclass(frozen=True)
class Quarantined:
    """A record that is left out, and why."""

    record: str
    reason: str


@dataclass(frozen=True)
class Repeat:
    """A record whose problem and answer came before."""


Found = MathProblem | Quarantined | Repeat


@dataclass
class Answers:
    """The answer of each problem by its key, a few bytes for each, and which have several."""

    first: dict[bytes, bytes] = field(default_factory=dict)
    several: set[bytes] = field(default_factory=set)

    def add(self, problem: MathProblem) -> None:
        """Remember the answer, or that it is another one than before."""
        answer = digest(problem.answer)
        if self.first.setdefault(problem.key, answer) != answer:
            self.several.add(problem.key)


@dataclass
class SplitCard:
    """Counts and lengths of one split."""

    reasons: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    negative: int = 0
    chars: array[int] = field(default_factory=lambda: array("q"))

    def add(self, found: Found) -> None:
        """Count what became of a record."""
        if isinstance(found, Repeat):
            self.repeats += 1
        elif isinstance(found, Quarantined):
            self.reasons[found.reason] += 1
        else:
            self.negative += found.answer.startswith("-")
            self.chars.append(len(found.messages[-1]["content"]))

    def content(self) -> dict[str, Any]:
        """The card."""
        rows, quarantined = len(self.chars), self.reasons.total()
        return {
            "read": rows + self.repeats + quarantined,
            "rows": rows,
            "repeats": self.repeats,
            "quarantined": quarantined,
            "reasons": dict(sorted(self.reasons.items())),
            "negative_answers": self.negative,
            "prompt_chars": {
                "median": statistics.median(self.chars or [0]),
                "max": max(self.chars, default=0),
            },
        }


def prepare(
    sources: Mapping[str, str], out: Path, options: PrepareOptions | None = None
) -> dict[str, Any]:
    """Write the splits of `sources` (train, validation or both) into `out`; returns the data card.

    Raises SourceError when a source is missing or leaves no row, and OutputError, before anything
    is read, when `out` cannot be written into.
    """
    options = options or PrepareOptions()
    for source in sources.values():
        open_files(source)  # what is wrong with a source comes before what is with `out`
    if not options.dry_run:
        check_writable(out)
    held_out: set[bytes] = set()
    card: dict[str, Any] = {}
    for split in (name for name in SPLITS if name in sources):
        reader = _Reader(sources[split], split, options, frozenset(held_out))
        split_card = SplitCard()
        for found in reader.found() if options.dry_run else _written(reader, out):
            split_card.add(found)
            if isinstance(found, MathProblem) and split == VALIDATION:
                held_out.add(found.key)
        card[split] = split_card.content()
        if not options.dry_run:
            update_json(out / "data_card.json", card)
    return card


def convert(
    items: Iterable[Item], answers: Answers, held_out: frozenset[bytes], options: PrepareOptions
) -> Iterator[Found]:
    """Items to problems, in source order, each problem once; `answers` are those of all items."""
    seen: set[bytes] = set()
    for place, item in enumerate(items):
        if options.max_rows is not None and len(seen) >= options.max_rows:
            break
        try:
            problem = to_problem(item, place, options.max_problem_chars)
            if problem.key in answers.several:
                raise Malformed("the same problem has several answers")
            if problem.key in held_out:
                raise Malformed("the problem is one of the validation's")
        except Malformed as reason:
            yield Quarantined(name_of(item, place), str(reason))
            continue
        yield Repeat() if problem.key in seen else problem
        seen.add(problem.key)


@dataclass(frozen=True)
class _Reader:
    """One split's source, read as often as asked."""

    source: str
    split: str
    options: PrepareOptions
    held_out: frozenset[bytes]

    def found(self) -> Iterator[Found]:
        """What becomes of each record. Raises SourceError at the end if no problem was usable."""
        answers = self._answers()
        items = counted(open_files(self.source), f"{self.split}: writing", "record")
        reasons: Counter[str] = Counter()
        usable = False
        for found in convert(items, answers, self.held_out, self.options):
            usable = usable or isinstance(found, MathProblem)
            if not usable and isinstance(found, Quarantined):
                reasons[found.reason] += 1
            yield found
        if not usable:
            raise SourceError(
                f"--source {self.source}: no usable problem for {self.split}; most frequent "
                f"reasons: {reasons.most_common(3)}"
            )

    def _answers(self) -> Answers:
        answers = Answers()
        items = counted(open_files(self.source), f"{self.split}: reading", "record")
        for place, item in enumerate(items):
            try:
                answers.add(to_problem(item, place, self.options.max_problem_chars))
            except Malformed:
                continue  # told of when it is written
        return answers


def _written(reader: _Reader, out: Path) -> Iterator[Found]:
    """What is found, written on its way; a source without a usable problem leaves no file."""
    split, index = reader.split, 0
    # In this order: what stays of the quarantine depends on the parquet files.
    quarantine = LineFile(out / "quarantine.jsonl", split)
    with quarantine, RowFile(out / f"{split}.parquet", SCHEMA) as rows:
        for found in reader.found():
            if isinstance(found, Quarantined):
                quarantine.add({"split": split, "record": found.record, "reason": found.reason})
            elif isinstance(found, MathProblem):
                row = to_row(found, DATA_SOURCES[split], split, index)
                rows.add(row, len(found.messages[-1]["content"]))
                index += 1
            yield found

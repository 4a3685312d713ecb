"""One-liners: programs of one expression, small problems for a small pretrained model.

"Write a Python program that prints the product of 17 and 24." The parameters are in the question,
nothing is read, and one test looks at what is printed. SmolLM2-135M solves about one in six at
temperature 0.7, where of micro-APPS it solves next to none.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from recipe.cpu.micro_tasks import Split
from recipe.data.apps import PrepareOptions, PromptStyle, prepare

QUESTION = (
    "Write a Python program that prints {what}. "
    "Reply with one ```python block and with nothing else."
)
_WORDS = (
    "lamp river seven orange cloud piano ticket garden window stone bread rocket pencil tiger "
    "market button camera silver island basket candle dragon engine forest guitar hammer "
    "jacket kettle ladder magnet needle oyster pepper quartz ribbon saddle tunnel velvet "
    "walnut yellow"
)
WORDS = tuple(_WORDS.split())
NUMBERS = range(10, 100)


@dataclass(frozen=True)
class Family:
    """Problems of one expression. {a} and {b} are numbers, {word} is a word.

    `meaning` is the expected output, so that it never comes from a program under judgement.
    """

    name: str
    phrase: str
    code: str
    meaning: Callable[[Any], object]


@dataclass(frozen=True)
class OneLiner:
    """One problem: a family with its parameters."""

    family: Family
    parameters: Mapping[str, Any]

    @property
    def question(self) -> str:
        """What the policy is asked."""
        return QUESTION.format(what=self.family.phrase.format(**self.parameters))

    @property
    def program(self) -> str:
        """A right program, without a trailing newline."""
        return f"print({self.family.code.format(**self.parameters)})"

    @property
    def output(self) -> str:
        """What it prints."""
        return f"{self.family.meaning(self.parameters)}\n"

    @property
    def split(self) -> Split:
        """Test for a tenth of all problems, by hash."""
        return (
            Split.TEST if hashlib.sha256(self.question.encode()).digest()[0] < 26 else Split.TRAIN
        )


FAMILIES = (
    Family("sum", "the sum of {a} and {b}", "{a} + {b}", lambda p: p["a"] + p["b"]),
    Family("difference", "{a} minus {b}", "{a} - {b}", lambda p: p["a"] - p["b"]),
    Family("product", "the product of {a} and {b}", "{a} * {b}", lambda p: p["a"] * p["b"]),
    Family("larger", "the larger of {a} and {b}", "max({a}, {b})", lambda p: max(p["a"], p["b"])),
    Family("smaller", "the smaller of {a} and {b}", "min({a}, {b})", lambda p: min(p["a"], p["b"])),
    Family("square", "the square of {a}", "{a} ** 2", lambda p: p["a"] ** 2),
    Family("half", "half of {a}, rounded down", "{a} // 2", lambda p: p["a"] // 2),
    Family("reversed", "the word {word} backwards", '"{word}"[::-1]', lambda p: p["word"][::-1]),
    Family(
        "upper",
        "the word {word} in capital letters",
        '"{word}".upper()',
        lambda p: p["word"].upper(),
    ),
    Family(
        "length",
        "the number of letters in the word {word}",
        'len("{word}")',
        lambda p: len(p["word"]),
    ),
)


def one_liners(split: Split, seed: int) -> Iterator[OneLiner]:
    """Problems of the split, none twice, as long as there are any; the same for the same seed."""
    rng = random.Random(f"one-liners/{split.value}/{seed}")
    seen: set[str] = set()
    while True:
        numbers = {"a": rng.choice(NUMBERS), "b": rng.choice(NUMBERS)}
        problem = OneLiner(rng.choice(FAMILIES), numbers | {"word": rng.choice(WORDS)})
        if problem.split is split and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def record(problem: OneLiner) -> dict[str, Any]:
    """The problem as a record of APPS."""
    suite = {"inputs": [""], "outputs": [problem.output]}
    return {
        "question": problem.question,
        "input_output": json.dumps(suite),
        "solutions": json.dumps([problem.program]),
        "difficulty": problem.family.name,
    }


def prepare_one_liners(out: Path, train: int, test: int, seed: int = 0) -> tuple[Path, Path]:
    """`out/one_liners/SPLIT.jsonl`, and verl's `train.parquet` and `test.parquet` in `out`."""
    source = out / "one_liners"
    source.mkdir(parents=True, exist_ok=True)
    for split, count in ((Split.TRAIN, train), (Split.TEST, test)):
        lines = [json.dumps(record(one)) + "\n" for one in islice(one_liners(split, seed), count)]
        (source / f"{split.value}.jsonl").write_text("".join(lines), encoding="utf-8")
    options = PrepareOptions(data_source="one_liners", prompt_style=PromptStyle.BARE)
    prepare(str(source), out, splits=("train", "test"), options=options)
    return out / "train.parquet", out / "test.parquet"

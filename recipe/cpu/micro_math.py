"""Small arithmetic in the form of DAPO-Math-17k: data of a run on mathematics on the CPU.

What a sum leaves when it is divided by two: half of all guesses are right, so that a model of a
million parameters has groups that are partly right. Each problem stands there several times, as in
the public file, and `prepare_micro_math` has `recipe.data.math_problems` make verl's parquet of
them, as of the real ones. Validation has sums of its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.data.math_problems import TRAIN, VALIDATION, prepare

HELD_OUT_EVERY = 7
"""Of all sums, one in so many is the validation's."""
LARGEST = 20
TIMES = {TRAIN: 3, VALIDATION: 2}
"""How often each problem stands in its file."""

Message = dict[str, str]


@dataclass(frozen=True)
class Sum:
    """One problem: what a + b leaves when it is divided by two."""

    a: int
    b: int

    @property
    def answer(self) -> int:
        """What is expected."""
        return (self.a + self.b) % 2

    @property
    def messages(self) -> list[Message]:
        """What the policy is asked."""
        return [{"role": "user", "content": f"{self.a} + {self.b} mod 2 = ?\n\nEnd with Answer: N"}]

    def response(self, answer: int) -> str:
        """A response that ends with this answer."""
        return f"{self.a} + {self.b}\nAnswer: {answer}"


def sums(split: str) -> list[Sum]:
    """All problems of a split."""
    every = [Sum(a, b) for a in range(1, LARGEST) for b in range(1, LARGEST)]
    held_out = every[::HELD_OUT_EVERY]
    return held_out if split == VALIDATION else [one for one in every if one not in held_out]


def records(split: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` problems of the split in the form of DAPO-Math-17k, each several times."""
    rng = random.Random(f"micro-math/{split}/{seed}")
    chosen = rng.sample(sums(split), count)
    for place in range(count * TIMES[split]):
        one = chosen[place % count]
        yield {
            "data_source": "math_dapo",
            "prompt": one.messages,
            "ability": "MATH",
            "reward_model": {"ground_truth": str(one.answer), "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": f"{split}-{place}"},
        }


def prepare_micro_math(
    out: Path, train_rows: int = 256, validation_rows: int = 32, seed: int = 0
) -> tuple[Path, Path]:
    """`out/{dapo_math,aime}.jsonl`, and verl's `train.parquet` and `validation.parquet` in `out`.

    At most 309 rows for training and 52 for validation.
    """
    out.mkdir(parents=True, exist_ok=True)
    sources = {}
    for split, rows, name in (
        (TRAIN, train_rows, "dapo_math"),
        (VALIDATION, validation_rows, "aime"),
    ):
        source = out / f"{name}.jsonl"
        lines = (json.dumps(record) + "\n" for record in records(split, rows, seed))
        source.write_text("".join(lines))
        sources[split] = str(source)
    prepare(sources, out)
    return out / "train.parquet", out / "validation.parquet"

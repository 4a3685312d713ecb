"""Micro-APPS as dialogues, in Prompt-Collection's form: data of a dialogue run on the CPU.

The tiny model writes nothing but programs, so its users ask for programs; one in four has had an
answer before and asks for another. `prepare_micro_dialogue` writes the records and has
`recipe.data.prompt_collection` make verl's parquet of them, as of the real collection.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from recipe.cpu.micro_apps import draw_task
from recipe.cpu.micro_corrupt import fenced
from recipe.cpu.micro_tasks import Split, Style
from recipe.cpu.tiny_model_examples import policy_messages
from recipe.data.prompt_collection import PrepareOptions, prepare

SUBSETS = ("UltraFeedback", "HelpSteer", "OrcaPairs", "UltraInteract", "Capybara", "DIBT-10K")
"""The names of the collection's six sources; here they only label."""
FOLLOW_UP_SHARE = 0.25


def dialogues(seed: int) -> Iterator[dict[str, Any]]:
    """Records without end, no conversation twice; the same seed gives the same sequence."""
    rng = random.Random(f"micro-dialogue/{seed}")
    seen: set[str] = set()
    while True:
        messages = _conversation(rng)
        text = "\n".join(message["content"] for message in messages)
        if text not in seen:
            number = len(seen)
            seen.add(text)
            yield {
                "dataset": SUBSETS[number % len(SUBSETS)],
                "context": text,
                "context_messages": messages,
                "id": str(number),
            }


def _conversation(rng: random.Random) -> list[dict[str, str]]:
    last = policy_messages(draw_task(rng, Split.TRAIN), rng)
    if rng.random() >= FOLLOW_UP_SHARE:
        return last
    before = draw_task(rng, Split.TRAIN)
    answer = {"role": "assistant", "content": fenced(before.program(Style.draw(rng)))}
    return [*policy_messages(before, rng), answer, *last]


def prepare_micro_dialogue(
    out: Path, train_rows: int = 256, validation_rows: int = 16, seed: int = 0
) -> tuple[Path, Path]:
    """`out/micro_dialogue.jsonl`, and verl's `train.parquet` and `validation.parquet` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    source = out / "micro_dialogue.jsonl"
    records = islice(dialogues(seed), train_rows + validation_rows)
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    prepare(str(source), out, PrepareOptions(validation_rows=validation_rows))
    return out / "train.parquet", out / "validation.parquet"

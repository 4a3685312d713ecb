"""The tiny model, taught the form of an answer: policy and refiner of a mathematics run on the CPU.

The tiny model writes nothing but programs, and math_dapo would give it -1 for all of them. This one
goes on from its weights and guesses, as policy and as refiner: it is right half the time, and one
refinement in five is better than what it refines. Made in seconds where it is first wanted, and
kept in the user's cache; `python -m recipe.cpu.math_model` prints its folder.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer

from recipe.cpu.made_once import made_once, user_cache
from recipe.cpu.micro_math import Message, Sum, sums
from recipe.cpu.tiny_model import ensure_checkpoint, save
from recipe.cpu.tiny_model_examples import TEMPLATE, Example, Lesson, prompt_ids
from recipe.cpu.tiny_model_train import Batch, collate, teach
from recipe.data.math_problems import TRAIN
from refiner_worker.prompts import load_template, render

LESSONS = (Lesson.WRITE, Lesson.FIX)


@dataclass(frozen=True)
class Lessons:
    """How it is taught. `seed` decides which examples it sees."""

    seed: int = 0
    steps: int = 60
    batch_size: int = 16
    learning_rate: float = 3e-3


def ensure_math_model(cache: Path | None = None, lessons: Lessons | None = None) -> Path:
    """Its folder below `cache` (the user's by default), made if it is not there yet.

    The name carries what it was made from, so that a new tiny model gets a new one.
    """
    lessons = lessons or Lessons()
    folder = (cache or user_cache()) / f"math-model-{_digest(lessons)}"
    return made_once(folder, lambda partial: save(*taught(lessons), partial))


def draw_example(tokenizer: Qwen2Tokenizer, rng: random.Random) -> Example:
    """One random example; its sum is none of the validation's."""
    messages, answer = lesson_texts(rng.choice(LESSONS), rng.choice(sums(TRAIN)), rng)
    prompt = prompt_ids(tokenizer, messages)
    target = tokenizer.encode(answer, add_special_tokens=False)
    return Example([*prompt, *target, tokenizer.eos_token_id], len(prompt))


def lesson_texts(lesson: Lesson, one: Sum, rng: random.Random) -> tuple[list[Message], str]:
    """Messages and the response to learn, which is a guess."""
    shown, guess = (one.response(rng.randrange(2)) for _ in range(2))
    if lesson is Lesson.WRITE:
        return one.messages, guess
    return render(load_template(TEMPLATE), one.messages, shown), guess


def taught(lessons: Lessons) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    """Model and tokenizer; on one thread, since several wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _taught(lessons)
    finally:
        torch.set_num_threads(threads)


def _taught(lessons: Lessons) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    checkpoint = ensure_checkpoint()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = Qwen2ForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lessons.learning_rate, betas=(0.9, 0.98))
    teach(
        model,
        _batches(tokenizer, lessons),
        [optimizer],
        lambda step: 1 - step / lessons.steps,
        lessons.steps,
    )
    return model, tokenizer


def _batches(tokenizer: Qwen2Tokenizer, lessons: Lessons) -> Iterator[Batch]:
    rng = random.Random(f"math-model/{lessons.seed}")
    for _ in range(lessons.steps):
        rows = [draw_example(tokenizer, rng) for _ in range(lessons.batch_size)]
        yield collate(rows, tokenizer.pad_token_id, 0.0)


def _digest(lessons: Lessons) -> str:
    """Of the tiny model's weights and of how it is taught."""
    weights = (ensure_checkpoint() / "model.safetensors").read_bytes()
    taught = json.dumps(asdict(lessons), sort_keys=True).encode()
    return hashlib.sha256(weights + taught).hexdigest()[:12]


if __name__ == "__main__":
    print(ensure_math_model())

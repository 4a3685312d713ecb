"""Warm-start examples: writing (half of it sloppy), copying right responses, fixing wrong ones.

The sloppy writer makes a policy that passes about half the time, and the clean refiner one that has
something to give it: without that gap the quickstart would have nothing to show.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from transformers import PreTrainedTokenizerBase

from recipe.cpu.micro_apps import draw_task
from recipe.cpu.micro_corrupt import corrupt, fenced
from recipe.cpu.micro_tasks import Split, Style, Task
from recipe.data.apps_records import bare_prompt
from refiner_worker.prompts import load_template, render

TEMPLATE = "micro-v1"
SLOPPY_SHARE = 0.5
_TEMPLATE = load_template(TEMPLATE)


class Lesson(Enum):
    """What an example teaches."""

    WRITE = "write"  # problem -> response
    COPY = "copy"  # problem and right response -> the same response
    FIX = "fix"  # problem and wrong response -> the right one in the same style


LESSON_WEIGHTS = {Lesson.WRITE: 0.35, Lesson.COPY: 0.26, Lesson.FIX: 0.39}


@dataclass(frozen=True)
class Example:
    """Token ids of one conversation; the first `prompt_tokens` of them are the prompt."""

    ids: list[int]
    prompt_tokens: int


def policy_messages(task: Task, rng: random.Random) -> list[dict[str, str]]:
    """The prompt s0 as the prepared dataset has it (prompt style `bare`)."""
    content = bare_prompt(task.statement(rng), task.starter_code())
    return [{"role": "user", "content": content}]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """The tokens a model is given for these messages, up to where its response begins."""
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer.encode(text, add_special_tokens=False)


def draw_example(tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Example:
    """One random training example; its task is never a test task."""
    lesson = rng.choices(list(LESSON_WEIGHTS), list(LESSON_WEIGHTS.values()))[0]
    messages, answer = lesson_texts(lesson, draw_task(rng, Split.TRAIN), rng)
    prompt = prompt_ids(tokenizer, messages)
    target = tokenizer.encode(answer, add_special_tokens=False)
    return Example([*prompt, *target, tokenizer.eos_token_id], len(prompt))


def lesson_texts(
    lesson: Lesson, task: Task, rng: random.Random
) -> tuple[list[dict[str, str]], str]:
    """Messages and the response to learn."""
    style = Style.draw(rng)
    messages, right = policy_messages(task, rng), fenced(task.program(style))
    if lesson is Lesson.WRITE:
        sloppy = rng.random() < SLOPPY_SHARE
        return messages, corrupt(task, style, rng) if sloppy else right
    candidate = right if lesson is Lesson.COPY else corrupt(task, style, rng)
    return render(_TEMPLATE, messages, candidate), right

"""The tiny model at work: warm-started twice alike, and the shipped checkpoint's answers."""

from __future__ import annotations

import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.cpu.micro_apps import draw_task
from recipe.cpu.micro_tasks import Split
from recipe.cpu.tiny_model import ensure_checkpoint, train_tokenizer
from recipe.cpu.tiny_model_evaluate import generate
from recipe.cpu.tiny_model_examples import Lesson, lesson_texts, policy_messages
from recipe.cpu.tiny_model_train import WarmStart, warm_start


def test_the_same_settings_give_the_same_weights() -> None:
    tokenizer = train_tokenizer(seed=0, tasks=1500)
    settings = WarmStart(seed=3, steps=2, batch_size=2)
    first, second = (warm_start(tokenizer, settings) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_the_checkpoint_answers_in_one_block_and_copies_a_right_answer() -> None:
    """Greedy, on test tasks; thresholds far below the figures in the checkpoint's README."""
    folder = ensure_checkpoint()
    shipped = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    rng = random.Random(4)
    tasks = [draw_task(rng, Split.TEST) for _ in range(32)]
    answers = generate(*shipped, [policy_messages(task, rng) for task in tasks], temperature=0.0)
    assert sum(a.startswith("```python\n") and a.endswith("\n```") for a in answers) >= 24
    lessons = [lesson_texts(Lesson.COPY, task, rng) for task in tasks]
    copies = generate(*shipped, [messages for messages, _ in lessons], temperature=0.0)
    assert sum(a == b for a, (_, b) in zip(copies, lessons, strict=True)) >= 24

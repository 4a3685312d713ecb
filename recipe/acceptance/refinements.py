"""Refinements to decode: what a training step sends to the refiner, without the training."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

from recipe.cpu.micro_apps import MicroProblem, problems
from recipe.cpu.micro_corrupt import corrupt, fenced, misread
from recipe.cpu.micro_tasks import Split, Style
from recipe.cpu.tiny_model_examples import TEMPLATE, policy_messages, prompt_ids
from refiner_worker.prompts import load_template, render

MAX_PROMPT_TOKENS, MAX_ANSWER_TOKENS = 176, 64
ROLLOUTS_EACH = 4
"""Rollouts of one problem: a right program, one with a slip, and two that misread the task."""


def prompts(tokenizer: Any, count: int) -> list[list[int]]:
    """`count` prompts of the refiner, those of one problem side by side, always the same."""
    rng = random.Random(0)
    chosen = islice(problems(Split.TEST, seed=0), -(-count // ROLLOUTS_EACH))
    found = [
        prompt_ids(tokenizer, render(load_template(TEMPLATE), messages, answer))
        for problem in chosen
        for messages in [policy_messages(problem.task, rng)]
        for answer in _answers(problem, rng)
    ]
    return [prompt[:MAX_PROMPT_TOKENS] for prompt in found[:count]]


def _answers(problem: MicroProblem, rng: random.Random) -> list[str]:
    task, style = problem.task, Style.draw(rng)
    once, twice = misread(task, rng), misread(misread(task, rng), rng)
    return [
        fenced(task.program(style)),
        corrupt(task, style, rng),
        fenced(once.program(style)),
        corrupt(twice, style, rng),
    ]

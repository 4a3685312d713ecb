"""Sums for a run on the CPU: rows, splits, and what the tiny model is taught of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
from transformers import AutoTokenizer

from recipe.cpu.math_model import LESSONS, draw_example, lesson_texts
from recipe.cpu.micro_math import Sum, prepare_micro_math, records, sums
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.cpu.tiny_model_examples import Lesson
from recipe.data.math_problems import TRAIN, VALIDATION
from reward.math_dapo import compute_score


def test_the_splits_share_no_sum() -> None:
    train, held_out = sums(TRAIN), sums(VALIDATION)
    assert not set(train) & set(held_out)
    assert (len(train), len(held_out)) == (309, 52)


def test_rows_are_those_of_different_sums_and_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        prepare_micro_math(tmp_path / name, 30, 5)
    train, held_out = (pq.read_table(tmp_path / "a" / f"{split}.parquet").to_pylist()
                       for split in (TRAIN, VALIDATION))  # fmt: skip
    assert (len(train), len(held_out)) == (30, 5)
    asked = {row["prompt"][0]["content"] for row in train + held_out}
    assert len(asked) == 35
    for name in ("train.parquet", "validation.parquet", "data_card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "data_card.json").read_text())["train"]["repeats"] == 60
    first, other = (next(records(TRAIN, 30, seed))["prompt"] for seed in (0, 1))
    assert first != other


def test_the_scorer_accepts_some_guesses_and_not_others() -> None:
    one, rng = Sum(7, 8), random.Random(0)
    for lesson in LESSONS:
        told = [lesson_texts(lesson, one, rng) for _ in range(40)]
        scores = {
            compute_score("math_dapo", target, str(one.answer))["score"] for _, target in told
        }
        assert scores == {1.0, -1.0}
        assert all(("fix:" in messages[-1]["content"]) is (lesson is Lesson.FIX)
                   for messages, _ in told)  # fmt: skip


def test_an_example_ends_and_is_short_enough_for_the_runs_sizes() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ensure_checkpoint())
    rng = random.Random(0)
    for _ in range(50):
        example = draw_example(tokenizer, rng)
        assert example.ids[-1] == tokenizer.eos_token_id
        assert len(example.ids) - example.prompt_tokens < 32
        assert example.prompt_tokens < 96

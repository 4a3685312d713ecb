"""The tiny model's tokenizer, lessons and shipped checkpoint."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer

from recipe.cpu import tiny_model
from recipe.cpu.micro_apps import draw_task
from recipe.cpu.micro_tasks import Split
from recipe.cpu.tiny_model import build_model, ensure_checkpoint, save, train_tokenizer
from recipe.cpu.tiny_model_evaluate import Judged, summarise
from recipe.cpu.tiny_model_examples import (
    Example,
    Lesson,
    draw_example,
    lesson_texts,
    prompt_ids,
)
from recipe.cpu.tiny_model_train import collate
from reward.verdict import JudgeResult, Verdict

MAX_CHECKPOINT_BYTES = 4_500_000
TEXTS = [
    "```python\nn=int(input())\nfor x in a:\n    if x>12:\n        b.append(x*3)\n```",
    "prose with {braces}, tabs\t, trailing space \n\n and 日本語 é",
]


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return train_tokenizer(seed=0, tasks=1500)


@pytest.fixture(scope="module")
def shipped() -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    folder = ensure_checkpoint()
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_tokenizer(tokenizer: Qwen2Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_each_digit_is_a_token(tokenizer: Qwen2Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("12345")).strip() == "12345"
    assert len(tokenizer.encode("12345")) == 5


def test_the_chat_template_marks_roles_and_ends(tokenizer: Qwen2Tokenizer) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U {x}"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<|system|>S<|end|><|user|>U {x}<|end|><|assistant|>"
    assert prompt_ids(tokenizer, messages) == tokenizer.encode(text)


def test_a_saved_model_is_loaded_alike_by_the_auto_classes(
    tokenizer: Qwen2Tokenizer, tmp_path: Path
) -> None:
    model = build_model(tokenizer)
    save(model, tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == len(tokenizer) == model.config.vocab_size == 512
    assert [loaded.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert loaded.chat_template == tokenizer.chat_template
    assert (loaded.eos_token, loaded.pad_token) == ("<|end|>", "<|pad|>")
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_an_absent_checkpoint_names_what_is_missing_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tiny_model.resources, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors.*make_tiny_model --out"):
        ensure_checkpoint()


def test_lessons_teach_what_they_are_called() -> None:
    rng = random.Random(0)
    for _ in range(50):
        task = draw_task(rng, Split.TRAIN)
        for lesson in (Lesson.COPY, Lesson.FIX):
            (message,), answer = lesson_texts(lesson, task, rng)
            copied = message["content"].endswith(f"fix:\n{answer}")
            assert copied is (lesson is Lesson.COPY)


def test_about_half_of_the_writing_is_sloppy() -> None:
    rng = random.Random(1)
    answers = [lesson_texts(Lesson.WRITE, draw_task(rng, Split.TRAIN), rng) for _ in range(400)]
    assert all(len(messages) == 1 for messages, _ in answers)
    unfenced = sum(not answer.endswith("\n```") for _, answer in answers)
    assert 0 < unfenced < 0.2 * len(answers)


def test_an_example_is_prompt_answer_and_end(tokenizer: Qwen2Tokenizer) -> None:
    example = draw_example(tokenizer, random.Random(2))
    text = tokenizer.decode(example.ids)
    prompt = tokenizer.decode(example.ids[: example.prompt_tokens])
    assert prompt.startswith("<|user|>") and prompt.endswith("<|end|><|assistant|>")
    assert text.startswith(prompt) and text.endswith("<|end|>")
    assert example.ids.count(tokenizer.eos_token_id) == 2


def test_prompt_tokens_weigh_less_and_padding_nothing() -> None:
    batch = collate([Example([5, 6, 7], 1), Example([8, 9], 1)], pad_id=0, prompt_loss_weight=0.1)
    assert batch.ids_BT.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.attention_BT.tolist() == [[1, 1, 1], [1, 1, 0]]
    expected = torch.tensor([[0.1, 1.0, 1.0], [0.1, 1.0, 0.0]])
    assert torch.equal(batch.weights_BT, expected)


def result(verdict: Verdict, score: float) -> JudgeResult:
    return JudgeResult(verdict, passed=0, total=5, score=score, level=3, seconds=0.0)


def test_figures_are_fractions_of_what_they_are_named_after() -> None:
    """Right and copied, right and spoilt, wrong and fixed, wrong and copied."""
    right, wrong = result(Verdict.ACCEPTED, 1.0), result(Verdict.WRONG_ANSWER, -0.3)
    broken = result(Verdict.COMPILE_ERROR, -1.0)
    figures = summarise(
        Judged(["a", "b", "c", "d"], [right, right, wrong, broken]),
        Judged(["a", "x", "y", "d"], [right, wrong, right, broken]),
    )
    assert (figures.samples, figures.passed) == (4, 0.5)
    assert (figures.verbatim_of_right, figures.fixed_of_wrong) == (0.5, 0.5)
    assert (figures.improved, figures.harmed) == (0.25, 0.25)


def test_the_checkpoint_is_small_and_complete() -> None:
    files = list(ensure_checkpoint().iterdir())
    assert sum(file.stat().st_size for file in files) < MAX_CHECKPOINT_BYTES
    assert "README.md" in {file.name for file in files}


def test_the_checkpoint_agrees_with_its_own_tokenizer_and_code(
    shipped: tuple[Qwen2ForCausalLM, Qwen2Tokenizer],
) -> None:
    model, loaded = shipped
    assert model.config.vocab_size == len(loaded) == 512
    assert model.config.max_position_embeddings >= 8192
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert loaded.chat_template == tiny_model.CHAT_TEMPLATE
    assert model.generation_config.eos_token_id == loaded.eos_token_id

"""The token that ends a turn, from tokenizers and templates of the forms that models have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from refiner_worker.turn_end import turn_end

Make = Callable[[str], Any]


@pytest.mark.parametrize(
    ("form", "generation_ends", "expected"),
    [
        ("chatml", ["<|im_end|>"], "<|im_end|>"),
        ("chatml", [], "<|im_end|>"),
        ("chatml_of_gguf", ["<|im_end|>"], "<|im_end|>"),
        ("gemma", ["<eos>", "<end_of_turn>"], "<end_of_turn>"),
        ("phi", ["<|endoftext|>", "<|end|>"], "<|end|>"),
        ("mistral", ["</s>"], "</s>"),
        ("unmarked", ["<eos>"], "<eos>"),
        ("thinking", ["<|im_end|>", "<|endoftext|>"], "<|im_end|>"),
        ("opened", ["<|im_end|>"], "<|im_end|>"),
        # Generation does not stop at the template's token: responses end with the tokenizer's.
        ("chatml_base", ["<|endoftext|>"], "<|endoftext|>"),
        ("gemma", [], "<eos>"),
    ],
)
def test_responses_end_with_the_templates_token_if_generation_stops_there(
    chat_tokenizer: Make, form: str, generation_ends: list[str], expected: str
) -> None:
    tokenizer = chat_tokenizer(form)
    end = turn_end(tokenizer, tokenizer.convert_tokens_to_ids(generation_ends))
    assert tokenizer.convert_ids_to_tokens(end.id) == expected
    stops = {tokenizer.eos_token, *generation_ends}
    assert set(tokenizer.convert_ids_to_tokens(sorted(end.stop_ids))) == stops


@pytest.mark.parametrize(
    ("form", "written"),
    [("gemma", "<end_of_turn>"), ("chatml_base", "<|im_end|>"), ("unmarked", None)],
)
def test_what_the_template_writes_is_told_also_if_generation_runs_past_it(
    chat_tokenizer: Make, form: str, written: str | None
) -> None:
    tokenizer = chat_tokenizer(form)
    expected = None if written is None else tokenizer.convert_tokens_to_ids(written)
    assert turn_end(tokenizer).template_id == expected


def test_the_token_that_begins_a_turn_is_known(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer("chatml_of_gguf")
    assert tokenizer.eos_token_id in turn_end(tokenizer).template_opens_with
    tokenizer = chat_tokenizer("phi")
    assert tokenizer.eos_token_id not in turn_end(tokenizer).template_opens_with


def test_without_a_template_the_tokenizers_end_token_counts(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = None
    end = turn_end(tokenizer)
    assert (end.id, end.template_id) == (tokenizer.eos_token_id, None)


def test_without_an_end_token_of_the_tokenizer_the_generation_configs_counts(
    chat_tokenizer: Make,
) -> None:
    tokenizer = chat_tokenizer("unmarked")
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="end token"):
        turn_end(tokenizer)
    assert turn_end(tokenizer, [7]).id == 7

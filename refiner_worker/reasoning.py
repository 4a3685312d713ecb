"""The reasoning that a thinking model writes before its response, taken apart from the response.

A refiner that thinks reasons about the task of refining, which the policy is never given: its
reasoning must not be learnt as part of a response. The policy's own reasoning is what it would
write: it stays in front of the refined response, token for token (ours). The marks are those of
Qwen3, DeepSeek-R1 and most others; a model with other marks is read as one that does not think.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "<think>", "</think>"

Text = Callable[[Sequence[int]], str]


def prompt_opens_reasoning(
    tokenizer: PreTrainedTokenizerBase, chat_options: Mapping[str, Any] | None = None
) -> bool:
    """Whether the chat template ends a prompt within the reasoning, as DeepSeek-R1's does."""
    if tokenizer.chat_template is None:
        return False
    messages = [{"role": "user", "content": "ask"}]
    text = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, **(chat_options or {})
    )
    return text.rfind(OPEN) > text.rfind(CLOSE)


def response_text(text: str, *, opened: bool) -> str | None:
    """The response in an output; None if the output is reasoning that was not brought to an end.

    Args:
        opened: whether the prompt had begun the reasoning.
    """
    if not opened and not text.lstrip().startswith(OPEN):
        return text
    _, closed, response = text.partition(CLOSE)
    return response.lstrip() if closed else None


def reasoning_length(token_ids: Sequence[int], text: Text, *, opened: bool) -> int | None:
    """How many tokens of an output are its reasoning, with the blanks behind it.

    None if the reasoning was not brought to an end.

    Args:
        text: the text of tokens. opened: whether the prompt had begun the reasoning.
    """
    whole = text(token_ids)
    if response_text(whole, opened=opened) == whole:
        return 0
    if CLOSE not in whole:
        return None
    low, high = 1, len(token_ids)  # the shortest beginning that has the closing mark
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if CLOSE in text(token_ids[:middle]) else (middle + 1, high)
    while low < len(token_ids) and text(token_ids[low : low + 1]).isspace():
        low += 1
    return low

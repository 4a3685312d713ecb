"""Which token ends a model's turn.

Three files of a model say it, and they need not agree: the tokenizer's `eos_token`, the
`eos_token_id` of the generation config, and the chat template. Gemma's tokenizer has `<eos>`, and
its turns end with `<end_of_turn>`; Phi's has `<|endoftext|>`, and its turns end with `<|end|>`.
What is learnt as a response must end as the policy's own responses do: with the template's token,
if generation stops there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

_ASK, _REPLY = "xq7ask", "xq7reply"
"""Stand for a prompt and a response in the rendering that is looked at."""


@dataclass(frozen=True)
class TurnEnd:
    """How responses end.

    Attributes:
        id: the token that ends the policy's responses: the chat template's, if generation stops
            there, else the tokenizer's end token.
        stop_ids: the tokens at which generation stops.
        template_id: the token that the chat template writes after a response; None if it writes no
            token of its own there.
        template_opens_with: the tokens that the chat template writes between a prompt and a
            response.
    """

    id: int
    stop_ids: frozenset[int]
    template_id: int | None
    template_opens_with: frozenset[int]


def turn_end(
    tokenizer: PreTrainedTokenizerBase,
    generation_ends: Collection[int] = (),
    chat_options: Mapping[str, Any] | None = None,
) -> TurnEnd:
    """How responses of the tokenizer's model end.

    Args:
        generation_ends: `eos_token_id` of the generation config, at which engines stop beside the
            tokenizer's end token.
        chat_options: of the chat template (verl's `data.apply_chat_template_kwargs`).

    Raises ValueError if neither tokenizer nor generation config has an end token.
    """
    eos = tokenizer.eos_token_id
    stop_ids = frozenset(generation_ends) | (frozenset() if eos is None else {eos})
    before, after = _around_reply(tokenizer, chat_options or {})
    first = next((one for one in after if tokenizer.decode([one]).strip()), None)
    written = first if first in _marks(tokenizer) else None
    if not stop_ids:
        raise ValueError("neither the tokenizer nor the generation config has an end token")
    fallback = min(stop_ids) if eos is None else eos
    return TurnEnd(
        id=fallback if written is None or written not in stop_ids else written,
        stop_ids=stop_ids,
        template_id=written,
        template_opens_with=frozenset(before),
    )


def _around_reply(
    tokenizer: PreTrainedTokenizerBase, chat_options: Mapping[str, Any]
) -> tuple[list[int], list[int]]:
    """Tokens that the chat template writes between a prompt and a response, and after it."""
    if tokenizer.chat_template is None:
        return [], []
    messages = [{"role": "user", "content": _ASK}, {"role": "assistant", "content": _REPLY}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, **chat_options)
    before, reply, after = text.rpartition(_REPLY)
    if not reply:
        return [], []
    return (
        tokenizer.encode(before.rpartition(_ASK)[2], add_special_tokens=False),
        tokenizer.encode(after, add_special_tokens=False),
    )


def _marks(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that no text is cut into: those that were added, special ones among them."""
    return frozenset(tokenizer.get_added_vocab().values()) | frozenset(tokenizer.all_special_ids)

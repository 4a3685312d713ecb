"""How a model's chats are written: its chat template with the options that the run sets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from refiner_worker.reasoning import prompt_opens_reasoning
from refiner_worker.turn_end import TurnEnd, turn_end


@dataclass(frozen=True)
class Chat:
    """The policy's chats.

    Attributes:
        tokenizer: the policy's, with its chat template.
        options: of the chat template (verl's `data.apply_chat_template_kwargs`).
        end: how responses end.
        opens_reasoning: whether prompts end within the reasoning; see `reasoning.py`.
    """

    tokenizer: PreTrainedTokenizerBase
    options: Mapping[str, Any]
    end: TurnEnd
    opens_reasoning: bool

    @staticmethod
    def of(
        tokenizer: PreTrainedTokenizerBase,
        options: Mapping[str, Any] | None = None,
        generation_ends: Collection[int] = (),
    ) -> Chat:
        """The chats of the tokenizer's model; `generation_ends` as in `turn_end`."""
        chosen = dict(options or {})
        return Chat(
            tokenizer,
            chosen,
            turn_end(tokenizer, generation_ends, chosen),
            prompt_opens_reasoning(tokenizer, chosen),
        )

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text after which the model writes its reply to the messages."""
        return self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False, **self.options
        )

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The same in tokens."""
        return self.encode(self.prompt(messages))

    def encode(self, text: str) -> list[int]:
        """The text's tokens, without those that a tokenizer adds at the beginning or end."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def response_ids(self, text: str) -> list[int]:
        """The text as a whole response of the model, with the token that ends it."""
        return [*self.encode(text), self.end.id]

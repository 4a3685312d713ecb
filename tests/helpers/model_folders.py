"""Folders of models without weights: a real model's sizes beside the tiny model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from recipe.cpu.tiny_model import ensure_checkpoint

REPO_ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[str, dict[str, Any]] = json.loads(
    (REPO_ROOT / "scripts/lib/model_sizes.json").read_text(encoding="utf-8")
)
"""From the models' config.json."""
CONTEXT = 32768
LONG_CONTEXT = 131072
"""Of Qwen2.5's base models."""
SCORES = {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
"""Of a reward model's config.json."""


def sizes_of(name: str) -> dict[str, Any]:
    """The keys of config.json in which models of this name differ from the tiny one."""
    context = LONG_CONTEXT if name.startswith("Qwen/Qwen2.5-") and "Coder" not in name else CONTEXT
    own = SIZES[name] | {"max_position_embeddings": context}
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

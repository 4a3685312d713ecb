"""A checkpoint of any larger size that computes what the tiny model computes.

A GPU shows its costs only with a model of ordinary size, and rollouts and refinements mean
something only if the model knows the task. Here the weights of a small Qwen2 stand in a corner of
larger ones (h, d: hidden size and head size of the small model; H, D: of the large one). Ours.

    residual stream    the small model's h values, then zeros: embeddings and outputs are padded
    RMSNorm            its mean runs over H values: weights times sqrt(h/H), epsilon times h/H
    rotary pairs       pair j of D/2 turns as fast as pair j·d/D of d/2: the small pair j moves to
                       the large pair j·D/d
    scores             are divided by sqrt(D): queries times sqrt(D/d)
    MLP                padded; silu(0)·0 is 0
    further layers     random, with outputs of zero: they cost what layers cost, and can be trained;
                       their norms' weights are small, so that an optimizer's step on their many
                       outputs moves the model no further than one on the small model's own
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from recipe.online_refiner.preflight.memory import ModelShape

SPREAD = 0.02
"""Standard deviation of the further layers' weights: Qwen2's own at initialisation."""
FURTHER_NORM = 0.01
"""Of the further layers' norms. With 1, a step at the tiny model's learning rate, which changes
each zero of an output by that rate, would move the large model many times as far."""
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Size:
    """What of a Qwen2 config decides its size."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    intermediate: int

    @property
    def head(self) -> int:
        return self.hidden // self.heads

    @property
    def group(self) -> int:
        """Heads that share keys and values."""
        return self.heads // self.key_heads

    @classmethod
    def of(cls, config: dict[str, Any]) -> Size:
        return cls(
            config["hidden_size"],
            config["num_hidden_layers"],
            config["num_attention_heads"],
            config["num_key_value_heads"],
            config["intermediate_size"],
        )

    def applied_to(self, config: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
        """The small model's config.json at this size."""
        return {
            **config,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "intermediate_size": self.intermediate,
            "max_window_layers": self.layers,
            "layer_types": ["full_attention"] * self.layers,
            "rms_norm_eps": config["rms_norm_eps"] * config["hidden_size"] / self.hidden,
            "dtype": str(dtype).removeprefix("torch."),
        }


ORDINARY = Size(hidden=1536, layers=28, heads=12, key_heads=4, intermediate=8960)
"""1.33 billion parameters with the tiny model's 512 tokens: the layers of Qwen2.5-1.5B, but for two
more heads of keys."""
SMALL = Size(hidden=256, layers=6, heads=4, key_heads=4, intermediate=768)
"""Six million parameters, for a machine without a GPU."""


def enlarge(source: Path, target: Path, size: Size, dtype: torch.dtype) -> int:
    """Write the enlarged checkpoint into the folder `target`; returns its number of parameters.

    Raises ValueError if the sizes do not fit into one another.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    small = Size.of(config)
    _check(small, size)
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.name not in (WEIGHTS, "config.json"):
            shutil.copy(file, target)
    enlarged = size.applied_to(config, dtype)
    (target / "config.json").write_text(json.dumps(enlarged, indent=2), encoding="utf-8")
    weights = _weights(load_file(source / WEIGHTS), small, size)
    stored = {name: weight.to(dtype).contiguous() for name, weight in weights.items()}
    save_file(stored, target / WEIGHTS, metadata={"format": "pt"})
    return ModelShape.from_config(enlarged).parameters


def _check(small: Size, large: Size) -> None:
    fits = {
        "hidden": large.hidden >= small.hidden,
        "layers": large.layers >= small.layers,
        "intermediate": large.intermediate >= small.intermediate,
        "key_heads": large.key_heads >= small.key_heads and large.heads % large.key_heads == 0,
        "heads": large.group >= small.group and large.hidden % large.heads == 0,
        "head": large.head % small.head == 0,
    }
    for name, holds in fits.items():
        if not holds:
            raise ValueError(
                f"{name}={getattr(large, name)} cannot hold the small model's "
                f"{name}={getattr(small, name)}; give a size that is larger in each, with a head "
                "that is a multiple of the small one's"
            )


def _weights(small: dict[str, torch.Tensor], source: Size, target: Size) -> dict[str, torch.Tensor]:
    narrowed = math.sqrt(source.hidden / target.hidden)
    found = {}
    for name, weight in small.items():
        if name.endswith("norm.weight"):
            found[name] = _padded(weight * narrowed, (target.hidden,))
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            found[name] = _padded(weight, (weight.shape[0], target.hidden))
        elif "self_attn" in name:
            found[name] = _attention(name.split(".")[-2], weight, source, target)
        else:
            found[name] = _padded(weight, _mlp_shape(name.split(".")[-2], target))
    random = torch.Generator().manual_seed(0)
    for layer in range(source.layers, target.layers):
        for name, weight in found.copy().items():
            if name.startswith("model.layers.0."):
                new = name.replace("layers.0.", f"layers.{layer}.")
                found[new] = _further(name, weight, random)
    return found


def _attention(kind: str, weight: torch.Tensor, source: Size, target: Size) -> torch.Tensor:
    """A projection's weight or bias, its heads moved to their places in the large model."""
    is_query = kind in ("q_proj", "o_proj")
    rotates = kind in ("q_proj", "k_proj")
    heads = target.heads if is_query else target.key_heads
    index = torch.cat(
        [
            target.head * _head_place(head, source, target, is_query)
            + _places_in_head(source.head, target.head, rotates)
            for head in range(source.heads if is_query else source.key_heads)
        ]
    )
    if kind == "o_proj":
        out = torch.zeros(target.hidden, heads * target.head)
        out[: source.hidden, index] = weight
        return out
    if kind == "q_proj":
        weight = weight * math.sqrt(target.head / source.head)
    out = torch.zeros(heads * target.head, *[target.hidden] * (weight.dim() - 1))
    if weight.dim() == 1:
        out[index] = weight
    else:
        out[index, : source.hidden] = weight
    return out


def _head_place(head: int, source: Size, target: Size, is_query: bool) -> int:
    """Where a head goes, so that it still shares the keys of the heads that it shared them with."""
    if not is_query:
        return head
    return head // source.group * target.group + head % source.group


def _places_in_head(small: int, large: int, rotates: bool) -> torch.Tensor:
    """The place of each value of a head; Qwen2 turns value j together with value j + size/2."""
    place = torch.arange(small)
    if not rotates:
        return place
    half = small // 2
    return place % half * (large // small) + place // half * (large // 2)


def _mlp_shape(kind: str, size: Size) -> tuple[int, int]:
    if kind == "down_proj":
        return size.hidden, size.intermediate
    return size.intermediate, size.hidden


def _further(name: str, like: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """A weight of a layer that the small model lacks: it adds nothing to the residual stream."""
    if name.endswith("norm.weight"):
        return torch.full_like(like, FURTHER_NORM)
    if name.endswith("bias") or "o_proj" in name or "down_proj" in name:
        return torch.zeros_like(like)
    return torch.randn(like.shape, generator=random) * SPREAD


def _padded(weight: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    out = torch.zeros(shape)
    out[tuple(slice(size) for size in weight.shape)] = weight.float()
    return out

"""An exponential moving average of a model's weights, kept as a Hugging Face folder (ours).

    average ← decay·average + (1 - decay)·weights

Weights come one at a time, as a sharded model hands them out, and leave in files of bounded size,
so that no process ever holds a second model.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

INDEX_FILE = "model.safetensors.index.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".safetensors.index.json")
SHARD_BYTES = 2 << 30


class WeightFiles:
    """The tensors of a folder's safetensors files by name, read when asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            name: path for path in sorted(folder.glob("*.safetensors")) for name in _names_in(path)
        }
        if not self._files:
            raise FileNotFoundError(
                f"{folder}: no .safetensors files to average with. Fix: give the model in that "
                "format (save_pretrained writes it)"
            )

    def get(self, name: str) -> torch.Tensor | None:
        """The tensor, or None if no file has it (a tied output layer is often left out)."""
        if name not in self._files:
            return None
        with safe_open(self._files[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
            return tensor


def average_into(
    folder: Path,
    weights: Iterable[tuple[str, torch.Tensor]],
    before: Path,
    decay: float,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the average of `before` and the weights to a new folder; `before` is left as it is.

    Args:
        folder: where to; appears only once it is complete, and replaces what was there.
        weights: the model's tensors by their Hugging Face names, each of them whole.
        before: the model folder with the average so far, or with the initial weights.
        decay: of the average so far, in [0, 1].
        shard_bytes: a file is closed once it holds this many bytes.

    Raises FileNotFoundError if `before` has no safetensors files, and ValueError if a tensor
    has another shape there.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _copy_all_but_weights(before, part)
    _write_shards(part, _averaged(weights, WeightFiles(before), decay), shard_bytes)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def _averaged(
    weights: Iterable[tuple[str, torch.Tensor]], before: WeightFiles, decay: float
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in weights:
        new = tensor.detach().cpu()
        old = before.get(name)
        if old is None:
            yield name, new.clone()
            continue
        if old.shape != new.shape:
            raise ValueError(f"{name}: {tuple(new.shape)} now, {tuple(old.shape)} in the average")
        # In float32: a step of (1 - decay) is lost in bfloat16's eight bits.
        yield name, torch.lerp(new.float(), old.float(), decay)


def _write_shards(
    folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], shard_bytes: int
) -> None:
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(_shards(tensors, shard_bytes), start=1):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
        total += sum(tensor.nbytes for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _shards(
    tensors: Iterable[tuple[str, torch.Tensor]], shard_bytes: int
) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors:
        shard[name] = tensor.contiguous()
        size += tensor.nbytes
        if size >= shard_bytes:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def _copy_all_but_weights(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(WEIGHT_SUFFIXES):
            shutil.copy(path, target)


def _names_in(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())

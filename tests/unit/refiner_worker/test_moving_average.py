"""The moving average of weights: its arithmetic, its files, and what is left where it fails."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from refiner_worker.moving_average import INDEX_FILE, average_into


def folder_with(path: Path, **tensors: torch.Tensor) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text("{}")
    return path


def read(folder: Path) -> dict[str, torch.Tensor]:
    index = json.loads((folder / INDEX_FILE).read_text())
    files = {name: load_file(folder / name) for name in set(index["weight_map"].values())}
    return {name: files[file][name] for name, file in index["weight_map"].items()}


def test_each_tensor_moves_by_one_minus_decay_of_the_way(tmp_path: Path) -> None:
    before = folder_with(tmp_path / "a", w=torch.tensor([1.0, 2.0]))
    average_into(tmp_path / "b", [("w", torch.tensor([2.0, 0.0]))], before, decay=0.9)
    # 0.9·1 + 0.1·2 and 0.9·2 + 0.1·0
    torch.testing.assert_close(read(tmp_path / "b")["w"], torch.tensor([1.1, 1.8]))
    average_into(tmp_path / "c", [("w", torch.tensor([2.0, 0.0]))], tmp_path / "b", decay=0.9)
    torch.testing.assert_close(read(tmp_path / "c")["w"], torch.tensor([1.19, 1.62]))


def test_small_steps_are_not_lost_to_low_precision(tmp_path: Path) -> None:
    before = folder_with(tmp_path / "a", w=torch.ones(1, dtype=torch.bfloat16))
    weights = [("w", torch.tensor([2.0], dtype=torch.bfloat16))]
    average_into(tmp_path / "b", weights, before, decay=0.999)
    torch.testing.assert_close(read(tmp_path / "b")["w"], torch.tensor([1.001]))


def test_a_tensor_that_the_average_lacks_is_taken_over(tmp_path: Path) -> None:
    before = folder_with(tmp_path / "a", w=torch.zeros(1))
    weights = [("w", torch.ones(1)), ("lm_head.weight", torch.full((2,), 3.0))]
    average_into(tmp_path / "b", weights, before, decay=0.5)
    assert read(tmp_path / "b")["lm_head.weight"].tolist() == [3.0, 3.0]


def test_files_are_split_by_size_and_listed_in_an_index(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(4) for name in "abc"}
    before = folder_with(tmp_path / "a", **tensors)
    average_into(tmp_path / "b", tensors.items(), before, decay=0.5, shard_bytes=32)
    names = sorted(path.name for path in (tmp_path / "b").glob("*.safetensors"))
    assert names == ["model-00001.safetensors", "model-00002.safetensors"]
    index = json.loads((tmp_path / "b" / INDEX_FILE).read_text())
    assert index["metadata"]["total_size"] == 3 * 16
    assert sorted(index["weight_map"]) == ["a", "b", "c"]


def test_the_folder_is_a_whole_model_with_everything_but_the_old_weights(tmp_path: Path) -> None:
    before = folder_with(tmp_path / "a", w=torch.zeros(1))
    average_into(tmp_path / "b", [("w", torch.ones(1))], before, decay=0.5)
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert names == ["config.json", "model-00001.safetensors", INDEX_FILE]


def test_a_failure_leaves_the_average_so_far_in_place(tmp_path: Path) -> None:
    before = folder_with(tmp_path / "a", w=torch.zeros(2))
    average_into(tmp_path / "b", [("w", torch.ones(2))], before, decay=0.5)
    with pytest.raises(ValueError, match=r"w: \(3,\) now, \(2,\) in the average"):
        average_into(tmp_path / "b", [("w", torch.ones(3))], before, decay=0.5)
    assert read(tmp_path / "b")["w"].tolist() == [0.5, 0.5]


def test_a_folder_without_safetensors_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="save_pretrained"):
        average_into(tmp_path / "b", [("w", torch.ones(1))], tmp_path / "a", decay=0.5)

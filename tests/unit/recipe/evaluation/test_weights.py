"""Weights by their hash."""

from pathlib import Path

import pytest

from recipe.evaluation.weights import weights_sha256


def model(folder: Path, **files: str) -> str:
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return str(folder)


def test_the_hash_is_of_the_weights_alone(tmp_path: Path) -> None:
    first = weights_sha256(model(tmp_path / "a", one_safetensors="x", config_json="1"))
    assert first is not None and len(first) == 64
    assert weights_sha256(model(tmp_path / "b", one_safetensors="x", config_json="2")) == first
    assert weights_sha256(model(tmp_path / "c", one_safetensors="y")) != first
    assert weights_sha256(model(tmp_path / "d", one_safetensors="x", two_safetensors="")) != first
    assert weights_sha256(model(tmp_path / "e", one_bin="x")) != first


def test_a_model_without_weights_on_this_machine_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert weights_sha256(model(tmp_path / "a", config_json="1")) is None
    assert weights_sha256("someone/a-model-that-was-never-fetched") is None
    assert weights_sha256("not a name!") is None

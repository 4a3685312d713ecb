"""A checkpoint in verl's form becomes a folder that loads, with the same weights and a card."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.cpu import environment
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.evaluation.publish import publish


def write_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """The tiny model as verl's FSDP engine saves it from one rank; returns its weights."""
    actor = folder / "actor"
    actor.mkdir(parents=True)
    source = ensure_checkpoint()
    shutil.copytree(
        source, actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors", "*.md")
    )
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    weights = AutoModelForCausalLM.from_pretrained(source).state_dict()
    torch.save(weights, actor / "model_world_size_1_rank_0.pt")
    return weights


def test_a_checkpoint_is_merged_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "run"
    weights = write_checkpoint(run / "checkpoints" / "global_step_4")
    (run / "run.json").write_text(json.dumps({"kind": "dynamic", "seed": 5, "total_steps": 8}))
    out = tmp_path / "tuned"
    lacking = publish(run / "checkpoints" / "global_step_4", out, {})
    assert [line.split(":")[0] for line in lacking] == [str(run / "config.yaml")]
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    assert merged.keys() == weights.keys()
    for name, tensor in weights.items():  # the merger writes bfloat16
        assert torch.equal(merged[name], tensor.to(torch.bfloat16).float()), name
    assert AutoTokenizer.from_pretrained(out).chat_template
    card = (out / "README.md").read_text()
    assert card.startswith("---\n") and "4 of 8" in card and "# tuned" in card

"""The enlarged model computes what the small one computes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from recipe.acceptance.enlarged_model import ORDINARY, SMALL, Size, enlarge
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.preflight.memory import ModelShape

TOLERANCE = 2e-4
"""Of logits around 20 in float32: sums run over more terms, in another order."""
PROGRAM = "<|user|>Print the sum of all numbers.<|end|><|assistant|>```python\nprint(sum(a))\n```"


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize(
    "size", [SMALL, Size(hidden=384, layers=5, heads=12, key_heads=4, intermediate=400)]
)
def test_the_tiny_model_enlarged_has_its_logits(size: Size, tmp_path: Path) -> None:
    source = ensure_checkpoint()
    parameters = enlarge(source, tmp_path, size, torch.float32)
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path).encode(PROGRAM)])
    expected = logits(source, ids)
    assert expected.abs().max() > 10
    assert (logits(tmp_path, ids) - expected).abs().max() < TOLERANCE
    # The formula leaves the biases out.
    stored = load_file(tmp_path / "model.safetensors")
    assert parameters == sum(w.numel() for name, w in stored.items() if "bias" not in name)


@pytest.mark.parametrize("tied", [True, False])
def test_heads_that_share_keys_and_untied_outputs_go_along(tied: bool, tmp_path: Path) -> None:
    """Random weights, norms and biases too, so that every one of them counts."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    model = Qwen2ForCausalLM(config)
    for weight in model.parameters():
        weight.data.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(tmp_path / "small")
    enlarge(tmp_path / "small", tmp_path / "large", Size(96, 3, 6, 2, 64), torch.float32)
    ids = torch.randint(50, (2, 40))
    expected = logits(tmp_path / "small", ids)
    assert expected.std() > 1
    assert (logits(tmp_path / "large", ids) - expected).abs().max() < TOLERANCE


def test_further_layers_can_be_trained_and_move_it_no_faster(tmp_path: Path) -> None:
    """One step of a rate along the gradient's signs, as Adam's first is."""
    enlarge(ensure_checkpoint(), tmp_path, SMALL, torch.float32)
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path).encode(PROGRAM)])
    before = logits(tmp_path, ids)
    moved = {}
    for layers in ("further", "own"):
        model = Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        model(ids, labels=ids).loss.backward()
        for name, weight in model.named_parameters():
            is_further = "layers.4." in name or "layers.5." in name
            if is_further and "down_proj" in name:
                assert weight.grad.abs().max() > 0
            if is_further == (layers == "further"):
                weight.data.sub_(1e-4 * weight.grad.sign())
        with torch.no_grad():
            moved[layers] = (model(ids).logits - before).abs().max().item()
    assert 0 < moved["further"] < 0.1 * moved["own"]


def test_the_ordinary_size_has_about_a_billion_parameters() -> None:
    config = json.loads((ensure_checkpoint() / "config.json").read_text())
    shape = ModelShape.from_config(ORDINARY.applied_to(config, torch.bfloat16))
    assert shape.parameters == pytest.approx(1.33e9, rel=0.01)


def test_what_is_stored_has_the_asked_type(tmp_path: Path) -> None:
    enlarge(ensure_checkpoint(), tmp_path, SMALL, torch.bfloat16)
    weights = load_file(tmp_path / "model.safetensors").values()
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("size", "key"),
    [
        (Size(64, 6, 4, 4, 768), "hidden=64"),
        (Size(256, 3, 4, 4, 768), "layers=3"),
        (Size(256, 6, 16, 4, 768), "head=16"),  # smaller than the tiny model's 32
        (Size(256, 6, 2, 2, 768), "key_heads=2"),
    ],
)
def test_a_size_that_cannot_hold_the_model_is_refused(size: Size, key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=key):
        enlarge(ensure_checkpoint(), tmp_path, size, torch.float32)

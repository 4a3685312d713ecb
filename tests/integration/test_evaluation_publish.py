"""A checkpoint in verl's form becomes a folder that loads, with the same weights and a card."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.cpu import environment
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.evaluation.chat_options import chat_options
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.evaluate import Plan, evaluate
from recipe.evaluation.folder import Folder
from recipe.evaluation.generate import Completion, Request, Sampling
from recipe.evaluation.kinds import Benchmark
from recipe.evaluation.problems import load_problems
from recipe.evaluation.protocols import Prompt
from recipe.evaluation.publish import Labels, publish
from recipe.evaluation.weights import weights_sha256
from reward.config import JudgeConfig

ADD = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """Add two numbers."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(add):\n    assert add(1, 2) == 3\n    assert add(0, 5) == 5\n",
}


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


class Right:
    """An engine that writes the right body, with weights of any hash."""

    name = "right"

    def __init__(self, digest: str | None) -> None:
        self.digest = digest

    def weights(self) -> str | None:
        return self.digest

    def render(self, prompt: Prompt) -> tuple[str, bool]:
        return prompt.text, True

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Completion]]:
        for request in requests:
            yield request, Completion("\n    return a + b\n", "stop")


def evaluate_right(out: Path, folder: Path, digest: str | None) -> None:
    """An evaluation of one problem by weights of the given hash."""
    path = folder / "one.jsonl"
    path.write_text(json.dumps(ADD) + "\n")
    problems = load_problems(Benchmark.HUMANEVAL, path)
    judge = JudgeConfig(workers=1)
    plan = Plan("m", Sampling(), (problems,), ("bigcode",), (1,), None, judge)
    evaluate(plan, lambda: Right(digest), Folder(out))


def test_a_checkpoint_is_merged_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "run"
    weights = write_checkpoint(run / "checkpoints" / "global_step_4")
    (run / "run.json").write_text(json.dumps({"kind": "dynamic", "seed": 5, "total_steps": 8}))
    config = run / "config.yaml"
    config.write_text("data: {apply_chat_template_kwargs: {thinks: false}}\n")
    out = tmp_path / "tuned"
    checkpoint = run / "checkpoints" / "global_step_4"
    assert [line.split(":")[0] for line in publish(checkpoint, out, {})] == ["licence"]
    assert chat_options(str(out), []) == {"thinks": False}
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    assert merged.keys() == weights.keys()
    for name, tensor in weights.items():  # the merger writes bfloat16
        assert torch.equal(merged[name], tensor.to(torch.bfloat16).float()), name
    assert AutoTokenizer.from_pretrained(out).chat_template
    card = (out / "README.md").read_text()
    assert card.startswith("---\n") and "4 of 8" in card and "# tuned" in card
    assert "thinks=false, as in training" in card
    config.unlink()
    lacking = publish(checkpoint, out, {})
    assert [line.split(":")[0] for line in lacking] == [str(config), "licence"]
    assert chat_options(str(out), []) == {"thinks": False}
    modes = {path.name: path.stat().st_mode & 0o777 for path in out.iterdir() if path.is_file()}
    (tmp_path / "plain").touch()
    assert set(modes.values()) == {(tmp_path / "plain").stat().st_mode & 0o777}

    own, other = tmp_path / "own", tmp_path / "other"
    evaluate_right(own, tmp_path, weights_sha256(str(out)))
    evaluate_right(other, tmp_path, weights_sha256(str(ensure_checkpoint())))
    served = tmp_path / "served"
    evaluate_right(served, tmp_path, None)
    before = (out / "model.safetensors").stat().st_mtime_ns
    publish(checkpoint, out, {"tuned": own, "base": other}, Labels("apache-2.0"))
    loaded: Any = ModelCard.load(out / "README.md")
    assert loaded.data.license == "apache-2.0"
    assert [result.metric_value for result in loaded.data.eval_results] == [1.0]
    assert "<|user|>{problem}<|end|>" in loaded.text
    assert (out / "model.safetensors").stat().st_mtime_ns == before  # not merged again
    with pytest.raises(EvaluationError, match=r"of another model \(weights .* not .*; evaluate"):
        publish(checkpoint, out, {"tuned": other})
    with pytest.raises(EvaluationError, match="which weights it evaluated is not recorded"):
        publish(checkpoint, out, {"tuned": served})
    (out / "model.safetensors").write_bytes(b"edited")
    with pytest.raises(EvaluationError, match="not what this checkpoint was merged into"):
        publish(checkpoint, out, {})

"""What is said at the start of how a model's turns end, of its reasoning, and of its senses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig
from steps import rollout, step_of
from transformers import AutoTokenizer

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.method.chord import demonstrations
from recipe.online_refiner.preflight.rules import faults_of
from recipe.online_refiner.preflight.turn_rules import turn_warnings
from recipe.online_refiner.resolve.chat import chat_options, policy_chat
from recipe.online_refiner.resolve.resolving import resolve

Compose = Callable[..., DictConfig]
Make = Callable[[str], Any]
Folder = Callable[..., Path]
CHORD = ("constraint.kind=chord", "constraint.chord.peak=0.9")
NO_THOUGHTS = "data.apply_chat_template_kwargs={enable_thinking: false}"


@pytest.fixture
def model_folder(chat_tokenizer: Make, tmp_path: Path) -> Folder:
    """A model folder: the tokenizer of a form, and the end tokens of its generation config."""

    def make(form: str, *ends: str) -> Path:
        folder = tmp_path / form
        tokenizer = chat_tokenizer(form)
        tokenizer.save_pretrained(folder)
        shutil.copy(ensure_checkpoint() / "config.json", folder)
        if ends:
            named = {"eos_token_id": tokenizer.convert_tokens_to_ids(list(ends))}
            (folder / "generation_config.json").write_text(json.dumps(named))
        return folder

    return make


@pytest.fixture
def composed_with(composed: Compose, tmp_path: Path) -> Callable[..., DictConfig]:
    """The quickstart's configuration for a model folder, on rows with reference solutions."""
    row = {
        "data_source": "micro_apps",
        "prompt": [{"role": "user", "content": "Print the sum."}],
        "reward_model": {"style": "rule", "ground_truth": '{"inputs": ["1 2"], "outputs": ["3"]}'},
        "extra_info": {"index": 0, "reference_solution": "print(1)"},
    }
    path = tmp_path / "references.parquet"
    pq.write_table(pa.Table.from_pylist([row] * 16), path)

    def make(folder: Path, *changes: str) -> DictConfig:
        return composed(
            f"actor_rollout_ref.model.path={folder}",
            *(f"data.train_files={path}", f"data.val_files={path}"),
            *("data.max_prompt_length=256", "refiner.max_prompt_length=4000"),
            *changes,
        )

    return make


def refusal(config: DictConfig) -> str:
    faults = faults_of(resolve(config))
    assert faults
    return "\n".join(faults)


def warnings_of(config: DictConfig) -> list[str]:
    plan = resolve(config)
    assert faults_of(plan) == []
    return list(turn_warnings(plan))


def test_an_end_token_that_begins_turns_is_refused_with_the_one_that_ends_them(
    model_folder: Folder, composed_with: Callable[..., DictConfig]
) -> None:
    config = composed_with(model_folder("chatml_of_gguf", "<|im_end|>"))
    told = refusal(config)
    assert "eos_token '<|im_start|>' begins turns and ends none" in told
    assert "generation_config.json names '<|im_end|>'" in told
    assert "Fix: set eos_token to '<|im_end|>' in tokenizer_config.json" in told
    assert list(turn_warnings(resolve(config))) == []


@pytest.mark.parametrize(
    ("form", "ends"),
    [
        ("chatml", ["<|im_end|>", "<|endoftext|>"]),
        ("gemma", ["<eos>", "<end_of_turn>"]),
        ("phi", ["<|endoftext|>", "<|end|>", "<|assistant|>"]),
        ("mistral", ["</s>"]),
        ("unmarked", []),
        ("thinking", ["<|im_end|>", "<|endoftext|>"]),
    ],
)
def test_models_whose_files_agree_pass_in_silence(
    model_folder: Folder,
    composed_with: Callable[..., DictConfig],
    form: str,
    ends: list[str],
) -> None:
    assert warnings_of(composed_with(model_folder(form, *ends))) == []


@pytest.mark.parametrize(
    ("form", "ends", "written", "stops"),
    [
        ("chatml_base", ["<|endoftext|>"], "'<|im_end|>'", "'<|endoftext|>'"),
        ("gemma", ["<eos>"], "'<end_of_turn>'", "'<eos>'"),
        ("phi", [], "'<|end|>'", "'<|endoftext|>'"),
    ],
)
def test_generation_that_runs_past_the_end_of_a_turn_is_warned_of(
    model_folder: Folder,
    composed_with: Callable[..., DictConfig],
    form: str,
    ends: list[str],
    written: str,
    stops: str,
) -> None:
    (told,) = warnings_of(composed_with(model_folder(form, *ends)))
    assert f"ends a turn with {written}" in told
    assert f"but at {stops}" in told
    assert f"Refinements end with {stops}" in told


def test_a_generation_config_that_does_not_know_the_tokenizers_end_is_warned_of(
    model_folder: Folder, composed_with: Callable[..., DictConfig]
) -> None:
    (told,) = warnings_of(composed_with(model_folder("chatml", "<|endoftext|>")))
    assert "eos_token '<|im_end|>' is not among the eos_token_id" in told
    assert "'<|endoftext|>': rollouts stop at either, refinements end with '<|im_end|>'" in told


def test_a_model_without_any_end_token_is_refused(
    model_folder: Folder, composed_with: Callable[..., DictConfig]
) -> None:
    folder = model_folder("unmarked")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["eos_token"] = None
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "has an end token, so no response would end. Fix: set eos_token" in refusal(
        composed_with(folder)
    )


@pytest.mark.parametrize(
    ("form", "end"),
    [("chatml", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("phi", "<|end|>"), ("mistral", "</s>")],
)
def test_demonstrations_end_as_the_models_turns_end(
    model_folder: Folder, composed_with: Callable[..., DictConfig], form: str, end: str
) -> None:
    folder = model_folder(form, end)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = policy_chat(composed_with(folder), tokenizer)
    step = step_of([rollout("a_0", (3,), reference="print(1)\n")], chat=chat)
    ((_, learnt),) = demonstrations(step)
    assert tokenizer.decode(learnt) == f"```python\nprint(1)\n```{end}"


def test_demonstrations_after_a_prompt_that_begins_the_reasoning_are_refused(
    model_folder: Folder, composed_with: Callable[..., DictConfig]
) -> None:
    told = refusal(composed_with(model_folder("opened", "<|im_end|>"), *CHORD))
    assert "constraint.kind=chord: the chat template ends prompts with <think>" in told
    assert "+data.apply_chat_template_kwargs.enable_thinking=false" in told


def test_demonstrations_to_a_model_that_reasons_are_warned_of_unless_it_is_told_not_to(
    model_folder: Folder, composed_with: Callable[..., DictConfig]
) -> None:
    folder = model_folder("thinking", "<|im_end|>")
    (told,) = warnings_of(composed_with(folder, *CHORD))
    assert "the reference solutions hold no reasoning" in told
    assert warnings_of(composed_with(folder, *CHORD, NO_THOUGHTS)) == []
    assert warnings_of(composed_with(folder)) == []


def test_the_options_of_the_chat_template_count_in_the_length_of_prompts(
    model_folder: Folder, composed_with: Callable[..., DictConfig]
) -> None:
    """One token a byte: `<think>`, two line breaks, `</think>`, two line breaks are 6 more."""
    folder = model_folder("thinking", "<|im_end|>")
    chat = policy_chat(composed_with(folder), AutoTokenizer.from_pretrained(folder))
    plain = len(chat.prompt_ids([{"role": "user", "content": "Print the sum."}]))
    limit = f"data.max_prompt_length={plain}"
    assert warnings_of(composed_with(folder, limit)) == []
    told = refusal(composed_with(folder, limit, NO_THOUGHTS))
    assert f"are longer, up to {plain + 6} tokens" in told


def test_the_options_of_the_chat_template_are_verls(composed: Compose) -> None:
    assert chat_options(composed()) == {}
    assert chat_options(composed(NO_THOUGHTS)) == {"enable_thinking": False}


@pytest.mark.parametrize("sense", ["vision_config", "audio_config"])
def test_a_model_that_sees_or_hears_is_neither_refined_nor_shown_demonstrations(
    composed_with: Callable[..., DictConfig], tmp_path: Path, sense: str
) -> None:
    folder = tmp_path / "senses"
    shutil.copytree(ensure_checkpoint(), folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {sense: {"hidden_size": 8}}))
    for changes in (
        ("constraint.kind=dynamic",),
        CHORD,
        ("constraint.kind=none", "refiner.observe=true"),
        ("constraint.kind=recipe.online_refiner.method.chord:Chord",),
    ):
        told = refusal(composed_with(folder, *changes))
        assert f"takes more than text ({sense})" in told
        assert changes[0] in told
        assert "Fix: a text model, or constraint.kind=none" in told
    assert warnings_of(composed_with(folder, "constraint.kind=none", "refiner.observe=false")) == []

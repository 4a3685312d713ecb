"""The reward model that a machine without a GPU serves, and the dialogues that it scores."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForSequenceClassification

from recipe.cpu.micro_dialogue import SUBSETS, prepare_micro_dialogue
from recipe.cpu.reward_model import HeadFit, draw_pair, ensure_reward_model, load, score

QUICK = HeadFit(pairs=24)


def test_right_replies_score_higher_than_wrong_ones_and_the_folder_is_kept(tmp_path: Path) -> None:
    folder = ensure_reward_model(tmp_path)
    model, tokenizer = load(folder)
    rng = random.Random(1)
    pairs = [draw_pair(rng) for _ in range(128)]
    right, wrong = (score(model, tokenizer, list(side)) for side in zip(*pairs, strict=True))
    assert (right > wrong).float().mean() > 0.55
    assert right.mean() > wrong.mean()
    assert 0.3 < torch.cat([right, wrong]).std() < 3.0
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert ensure_reward_model(tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def test_the_same_settings_give_the_same_weights_and_others_another_folder(tmp_path: Path) -> None:
    first, again = (ensure_reward_model(tmp_path / name, QUICK) for name in "ab")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, again)]
    assert weights[0] == weights[1]
    assert first.name == again.name
    assert ensure_reward_model(tmp_path / "a", HeadFit(seed=1, pairs=24)) != first


def test_transformers_reads_it_as_a_classifier_with_one_label(tmp_path: Path) -> None:
    folder = ensure_reward_model(tmp_path, QUICK)
    model, tokenizer = load(folder)
    conversation = draw_pair(random.Random(2))[0]
    classifier = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=False)
    logits = classifier(input_ids=ids).logits
    assert logits.shape == (1, 1)
    torch.testing.assert_close(
        logits[0], score(model, tokenizer, [conversation]), atol=1e-5, rtol=0
    )


def test_generated_dialogues_become_prompt_collection_rows(tmp_path: Path) -> None:
    train, validation = prepare_micro_dialogue(tmp_path, 60, 12)
    rows = pq.read_table(train).to_pylist()
    assert (len(rows), pq.read_metadata(validation).num_rows) == (60, 12)
    assert {row["extra_info"]["subset"] for row in rows} == set(SUBSETS)
    turns = [row["extra_info"]["turns"] for row in rows]
    assert set(turns) == {1, 3}
    assert 5 <= turns.count(3) <= 25  # one in four follows up on an answer
    assert all(row["prompt"][-1]["role"] == "user" for row in rows)
    assert not (tmp_path / "quarantine.jsonl").read_text()
    assert json.loads(rows[0]["extra_info"]["conversation"]) == rows[0]["prompt"]

"""The reward model of a dialogue run on the CPU: the tiny model with a head that scores replies.

It stands in for a real one behind verl's reward-model servers: `Qwen2ForSequenceClassification`
with one label, the tiny model's weights and tokenizer, and a head fitted to tell a right program
from one with a slip. Six times in ten it prefers the right one: enough for a reward that is not
noise. Made in seconds where it is first wanted, and kept in the user's cache;
`python -m recipe.cpu.reward_model` prints its folder.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    Qwen2ForSequenceClassification,
    Qwen2Model,
    Qwen2Tokenizer,
)

from recipe.cpu.made_once import made_once, user_cache
from recipe.cpu.micro_apps import draw_task
from recipe.cpu.micro_corrupt import corrupt, fenced
from recipe.cpu.micro_tasks import Split, Style
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.cpu.tiny_model_examples import policy_messages

Message = dict[str, str]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class HeadFit:
    """How the head is fitted: by ridge regression on `pairs` of right and wrong replies."""

    seed: int = 0
    pairs: int = 512
    ridge: float = 1000.0


def ensure_reward_model(cache: Path | None = None, fit: HeadFit | None = None) -> Path:
    """Its folder below `cache` (the user's by default), made if it is not there yet.

    The name carries what it was made from, so that a new tiny model gets a new reward model.
    """
    fit = fit or HeadFit()
    folder = (cache or user_cache()) / f"reward-model-{_digest(fit)}"
    return made_once(folder, lambda partial: save(make(fit), partial))


def load(folder: Path) -> tuple[Qwen2ForSequenceClassification, Qwen2Tokenizer]:
    """Model and tokenizer of a folder."""
    model = Qwen2ForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, attn_implementation="sdpa"
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def make(fit: HeadFit) -> Qwen2ForSequenceClassification:
    """The tiny model with a fitted head; the same settings give the same weights.

    The head w minimises Σ(w·(h_right - h_wrong) - 1)² + ridge·|w|² over the last tokens' hidden
    states h, and is then scaled so that scores of the fitted replies have unit deviation.
    """
    backbone = Qwen2Model.from_pretrained(ensure_checkpoint(), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(ensure_checkpoint())
    rng = random.Random(f"reward-model/{fit.seed}")
    right, wrong = zip(*(draw_pair(rng) for _ in range(fit.pairs)), strict=True)
    states_NH = last_states(backbone, tokenizer, [*right, *wrong])
    gaps_PH = states_NH[: fit.pairs] - states_NH[fit.pairs :]
    size = gaps_PH.shape[1]
    head_H = torch.linalg.solve(
        gaps_PH.T @ gaps_PH + fit.ridge * torch.eye(size), gaps_PH.sum(dim=0)
    )
    config = backbone.config
    config.num_labels = 1
    model = Qwen2ForSequenceClassification(config)
    model.model = backbone
    model.score.weight.copy_(head_H[None] / (states_NH @ head_H).std())
    return model.eval()


def draw_pair(rng: random.Random) -> tuple[list[Message], list[Message]]:
    """The same conversation with a right reply and with one that has a slip."""
    task, style = draw_task(rng, Split.TRAIN), Style.draw(rng)
    asked = policy_messages(task, rng)
    replies = (fenced(task.program(style)), corrupt(task, style, rng))
    right, wrong = ([*asked, {"role": "assistant", "content": reply}] for reply in replies)
    return right, wrong


def last_states(
    backbone: Qwen2Model, tokenizer: Qwen2Tokenizer, conversations: list[list[Message]]
) -> torch.Tensor:
    """The hidden state at the last token of each of N conversations, shape (N, hidden)."""
    ids = [
        tokenizer.apply_chat_template(one, tokenize=True, return_dict=False)
        for one in conversations
    ]
    states = torch.empty(len(ids), backbone.config.hidden_size)
    by_length = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    for length, group in groupby(by_length, key=lambda index: len(ids[index])):
        chosen = list(group)
        rows = torch.tensor([ids[index] for index in chosen])
        hidden = backbone(input_ids=rows, use_cache=False).last_hidden_state
        states[chosen] = hidden[:, length - 1]
    return states


@torch.no_grad()
def score(
    model: Qwen2ForSequenceClassification,
    tokenizer: Qwen2Tokenizer,
    conversations: list[list[Message]],
) -> torch.Tensor:
    """The head's value at the last token of each of N conversations, shape (N,)."""
    return last_states(model.model, tokenizer, conversations) @ model.score.weight[0]


def save(model: Qwen2ForSequenceClassification, folder: Path) -> None:
    """An ordinary Hugging Face folder with the tiny model's tokenizer and chat template."""
    model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        shutil.copy(ensure_checkpoint() / name, folder)


def _digest(fit: HeadFit) -> str:
    weights = (ensure_checkpoint() / "model.safetensors").read_bytes()
    settings = json.dumps(asdict(fit), sort_keys=True).encode()
    return hashlib.sha256(settings + weights).hexdigest()[:12]


if __name__ == "__main__":
    print(ensure_reward_model())

"""Both readings of the cross entropy over one refined episode, by a pass of Transformers.

    python -m recipe.analysis.readings RUN --model FOLDER --rows TRAIN.parquet --out readings.png

A run logs the reading that its constraint used. Here a model computes both for an episode: to be
those of the run's policy it must be the one that the step started from, as the initial model is of
step 1.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.analysis.style import LIGHT, save

SELF_FED, TEACHER_FORCED = "self-fed", "teacher-forced"
COLOURS = {SELF_FED: "#d55e00", TEACHER_FORCED: "#0072b2"}
SIZE_IN = (9.2, 3.4)


@dataclass(frozen=True)
class Readings:
    """c_t in nats: self-fed for the first min(T, U) tokens of a', teacher-forced for all U."""

    self_fed: list[float]
    teacher_forced: list[float]


@dataclass(frozen=True)
class EpisodeIds:
    """Token ids of an episode: s0, a (T tokens) and a' (U tokens)."""

    prompt: list[int]
    answer: list[int]
    refined: list[int]


def both_readings(model: Any, ids: EpisodeIds) -> Readings:
    """-log π(a'_t | s0, a_<t) and -log π(a'_t | s0, a'_<t), each by one pass of the model."""
    steps = min(len(ids.answer), len(ids.refined))
    return Readings(
        _cross_entropy(model, ids.prompt, ids.answer[:steps], ids.refined[:steps]),
        _cross_entropy(model, ids.prompt, ids.refined, ids.refined),
    )


def _cross_entropy(
    model: Any, prompt: Sequence[int], states: Sequence[int], labels: Sequence[int]
) -> list[float]:
    """Of each label after the prompt and the states before it."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *states]])).logits[0, len(prompt) - 1 : -1]
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    values: list[float] = (-log_probs.gather(1, torch.tensor(labels)[:, None])[:, 0]).tolist()
    return values


def episode_ids(record: dict[str, Any], messages: Any, tokenizer: Any) -> EpisodeIds:
    """The ids of a logged episode, given the chat messages of its problem.

    Raises ValueError if two ids of the vocabulary are written alike and the episode has one.
    """
    by_text: dict[str, list[int]] = {}
    for token_id in range(len(tokenizer)):
        by_text.setdefault(tokenizer.decode([token_id]), []).append(token_id)

    def ids_of(tokens: Sequence[str]) -> list[int]:
        found = [by_text.get(token, []) for token in tokens]
        unclear = [token for token, ids in zip(tokens, found, strict=True) if len(ids) != 1]
        if unclear:
            raise ValueError(f"no single id of the vocabulary is written {unclear[0]!r}")
        return [ids[0] for ids in found]

    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return EpisodeIds(
        tokenizer.encode(prompt, add_special_tokens=False),
        ids_of(record["answer_tokens"]),
        ids_of(record["refined_tokens"]),
    )


def messages_by_problem(rows: Path) -> dict[str, Any]:
    """The chat messages of each problem of a prepared data set."""
    table = pq.read_table(rows, columns=["prompt", "extra_info"]).to_pylist()
    return {row["extra_info"]["problem_id"]: row["prompt"] for row in table}


def clearest(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The accepted episode in which most of the text is copied, before an edit and shifted by it.

    A copied token that stands at the same index in a has its own state again, and tells nothing.
    """

    def merit(record: dict[str, Any]) -> int:
        copied = record["copied"]
        if all(copied):
            return -1
        first = copied.index(0)
        pairs = zip(record["answer_tokens"], record["refined_tokens"], copied, strict=False)
        shifted = sum(bool(flag) and own != token for own, token, flag in pairs)
        return min(first, shifted)

    return max((one for one in records if one["accepted"]), key=merit)


def draw(axes: Axes, record: dict[str, Any], readings: Readings) -> None:
    """Both readings over the tokens of a', its edited tokens shaded."""
    for index, copied in enumerate(record["copied"]):
        if not copied:
            axes.axvspan(index - 0.5, index + 0.5, color=LIGHT.heat[1], linewidth=0)
    for name, values in (
        (TEACHER_FORCED, readings.teacher_forced),
        (SELF_FED, readings.self_fed),
    ):
        marker = "o" if name == SELF_FED else "s"
        axes.plot(values, marker=marker, markersize=3.5, label=name, color=COLOURS[name])
    tokens = record["refined_tokens"]
    axes.set_xticks(range(len(tokens)), [token.replace("\n", "⏎") for token in tokens])
    axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    axes.set_xlim(-0.5, len(tokens) - 0.5)
    axes.set_ylabel("cross entropy (nats)")
    axes.set_xlabel("tokens of the refinement; shaded: the refiner's edit")
    axes.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", required=True, help="folder or hub id of the step's policy")
    parser.add_argument("--rows", type=Path, required=True, help="the run's data, parquet")
    parser.add_argument("--step", type=int, default=1, help="the step that the model is of")
    parser.add_argument("--out", type=Path, required=True, help="a .png")
    options = parser.parse_args()
    lines = (options.run / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for line in lines if (record := json.loads(line))["step"] == options.step]
    record = clearest(records)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    messages = messages_by_problem(options.rows)[record["problem_id"]]
    ids = episode_ids(record, messages, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    draw(figure.subplots(), record, both_readings(model, ids))
    for path in save(figure, options.out.with_suffix(""), ["png"]):
        print(path)


if __name__ == "__main__":
    main()

"""What is known of a rollout and its refinement: goes with the row, then to episodes.jsonl."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

ROW_KEY = "refine"
"""Key of a row's `extra_fields` under which its `RefineRecord` travels, as a plain dict."""

SKIPPED_PERFECT = "skipped_perfect"
UNJUDGED = "unjudged"
"""Outcomes beside `refiner_worker.client.Outcome`: decided before and after asking the refiner."""


@dataclass(frozen=True)
class RefineRecord:
    """One rollout a of T tokens and what became of its refinement a' of U tokens.

    Attributes:
        outcome: a `refiner_worker.client.Outcome`, `skipped_perfect` or `unjudged`.
        reward: R(a), unshaped.
        refined_reward: R(a'), unshaped; None where there is no judged a'.
        accepted: whether the filter keeps a'.
        token_ids: a', EOS included; empty where there is none.
        copied: U flags, 1 where the token stands in a at the aligned place.
        divergence: index of the first token that differs from a at the same index.
        sources: U half-open ranges of tokens of a that each token copies or replaces.
        edit_distance: token edits from a to a'.
        generated_tokens: tokens that the refiner's engine decoded.
        engine_calls: requests that the refiner's engine answered.
        scored_tokens: tokens of a that `verify` decoding had scored in a prefill.
        judged_at_s: wall-clock time at which a was judged (Unix seconds).
        finished_at_s: wall-clock time at which the refinement was settled.
        verdict: the judge's word on a, empty where it has none.
        refined_verdict: the judge's word on a'.
    """

    outcome: str
    reward: float
    judged_at_s: float
    finished_at_s: float
    refined_reward: float | None = None
    accepted: bool = False
    token_ids: tuple[int, ...] = ()
    copied: tuple[int, ...] = ()
    divergence: int = 0
    sources: tuple[tuple[int, int], ...] = ()
    edit_distance: int = 0
    generated_tokens: int = 0
    engine_calls: int = 0
    scored_tokens: int = 0
    verdict: str = ""
    refined_verdict: str = ""

    @property
    def improved(self) -> bool:
        """Whether R(a') > R(a), whatever the filter keeps."""
        return self.refined_reward is not None and self.refined_reward > self.reward

    def to_row(self) -> dict[str, Any]:
        """The plain dict that travels in the row's `extra_fields`."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "RefineRecord":
        """The record of a dict made by `to_row`."""
        return cls(**row)


@dataclass(frozen=True)
class Episode:
    """A record together with its rollout, as the trainer sees them.

    Attributes:
        uid: the prompt group's id. problem_id: the dataset's. prompt_ids, answer_ids: s0 and a.
        cross_entropy: U values in nats, only for accepted refinements.
    """

    uid: str
    problem_id: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    record: RefineRecord
    cross_entropy: tuple[float, ...] | None = None


@dataclass(frozen=True)
class RolloutRow:
    """One rollout of the batch, padding rows left out.

    Attributes:
        reward: unshaped. reference: the dataset's solution, empty where it has none.
        episode: only where the rollout was up for refinement.
    """

    key: str
    uid: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    reward: float
    judged: bool
    reference: str
    episode: Episode | None


class EpisodeLog:
    """Appends refined episodes to a JSON-lines file, one a line, complete lines only."""

    def __init__(self, path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self._path = path
        self._tokenizer = tokenizer

    def append(self, step: int, episodes: Sequence[Episode]) -> None:
        """Write the episodes that have a refinement; the others hold nothing to look at."""
        lines = [
            json.dumps(self._entry(step, episode)) + "\n"
            for episode in episodes
            if episode.record.token_ids
        ]
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def _entry(self, step: int, episode: Episode) -> dict[str, Any]:
        record = episode.record
        return {
            "step": step,
            "uid": episode.uid,
            "problem_id": episode.problem_id,
            "prompt": self._text(episode.prompt_ids),
            "answer": self._text(episode.answer_ids),
            "refined": self._text(record.token_ids),
            "reward": record.reward,
            "refined_reward": record.refined_reward,
            "verdict": record.verdict,
            "refined_verdict": record.refined_verdict,
            "accepted": record.accepted,
            "outcome": record.outcome,
            "generated_tokens": record.generated_tokens,
            "engine_calls": record.engine_calls,
            "scored_tokens": record.scored_tokens,
            "verbatim": record.outcome == "verbatim",
            "answer_tokens": self._tokens(episode.answer_ids),
            "refined_tokens": self._tokens(record.token_ids),
            "copied": list(record.copied),
            "ce": None if episode.cross_entropy is None else list(episode.cross_entropy),
        }

    def _text(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def _tokens(self, token_ids: Sequence[int]) -> list[str]:
        return [self._tokenizer.decode([token_id]) for token_id in token_ids]

"""episodes.jsonl: every refined rollout of a run, one a line, with its cross entropy per token."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from recipe.online_refiner.choices import Conditioning
from recipe.online_refiner.records import RefinedRollout, Refinement, Rollout
from refiner_worker.outcome import Outcome


class EpisodeLog:
    """Appends refined rollouts to the file, complete lines only."""

    def __init__(self, path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self._path = path
        self._tokenizer = tokenizer

    def append(
        self,
        step: int,
        rollouts: Sequence[Rollout],
        measured: Mapping[str, RefinedRollout],
        reading: Conditioning,
    ) -> None:
        """Write the rollouts that have a refinement; the others hold nothing to look at.

        Args:
            measured: those whose cross entropy is known, by key.
            reading: what the policy had read for it.
        """
        entries = [
            self._entry(step, rollout, rollout.refinement, measured.get(rollout.key))
            for rollout in rollouts
            if rollout.refinement is not None and rollout.refinement.token_ids
        ]
        lines = [json.dumps(entry | {"ce_reading": reading}) + "\n" for entry in entries]
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def _entry(
        self, step: int, rollout: Rollout, refinement: Refinement, measured: RefinedRollout | None
    ) -> dict[str, Any]:
        cross_entropy = None if measured is None else measured.cross_entropy
        # Teacher-forced, every token is asked for.
        asked = None if measured is None or measured.states is None else measured.asked.tolist()
        return {
            "step": step,
            "uid": rollout.uid,
            "problem_id": rollout.problem_id,
            "prompt": self._text(rollout.prompt_ids),
            "answer": self._text(rollout.response_ids),
            "refined": self._text(refinement.token_ids),
            "reward": refinement.reward,
            "refined_reward": refinement.refined_reward,
            "verdict": refinement.verdict,
            "refined_verdict": refinement.refined_verdict,
            "accepted": refinement.accepted,
            "outcome": refinement.outcome,
            "generated_tokens": refinement.generated_tokens,
            "engine_calls": refinement.engine_calls,
            "scored_tokens": refinement.scored_tokens,
            "verbatim": refinement.outcome == Outcome.VERBATIM,
            "answer_tokens": self._tokens(rollout.response_ids),
            "refined_tokens": self._tokens(refinement.token_ids),
            "copied": list(refinement.copied),
            "ce": None if cross_entropy is None else cross_entropy.tolist(),
            "ce_asked": None if asked is None else [int(flag) for flag in asked],
        }

    def _text(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def _tokens(self, token_ids: Sequence[int]) -> list[str]:
        return [self._tokenizer.decode([token_id]) for token_id in token_ids]

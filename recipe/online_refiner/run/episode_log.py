"""episodes.jsonl and rollouts.jsonl: every rollout of a run, one a line, with numbers per token.

`episodes.jsonl` holds the rollouts that have a refinement, `rollouts.jsonl` the others: perfect
ones, those whose refinement failed, and all of a run that does not refine.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from recipe.online_refiner.choices import Conditioning
from recipe.online_refiner.records import UNJUDGED, RefinedRollout, Refinement, Rollout
from recipe.online_refiner.run.metrics_log import EPISODES_FILE, ROLLOUTS_FILE
from refiner_worker.outcome import Outcome

NOT_REFINED = "not_refined"
"""The outcome of a rollout in a run without a refiner."""

Columns = Mapping[str, Any]
"""Numbers of the tokens of one rollout by the name of their column: a list, or one for all."""


@dataclass(frozen=True)
class Measured:
    """What a step knows of its rollouts beside themselves.

    Attributes:
        reading: what the policy had read for the cross entropy.
        refined: the rollouts whose cross entropy is known, by key.
        columns: further numbers per token, by key.
    """

    reading: Conditioning
    refined: Mapping[str, RefinedRollout] = field(default_factory=dict)
    columns: Mapping[str, Columns] = field(default_factory=dict)


class EpisodeLog:
    """Appends rollouts to a run's two files, complete lines only.

    Attributes:
        share: of the problems whose rollouts are logged; the same ones in every step and run.
    """

    def __init__(
        self, folder: Path, tokenizer: PreTrainedTokenizerBase, share: float = 1.0
    ) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self.share = share
        self._words: dict[int, str] = {}

    def wanted(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Those that are logged: all rollouts of the problems in the share."""
        return [one for one in rollouts if in_share(one.problem_id or one.uid, self.share)]

    def append(
        self,
        step: int,
        rollouts: Sequence[Rollout],
        measured: Measured,
    ) -> None:
        """Write each rollout to the file that it belongs to."""
        episodes, others = [], []
        for rollout in rollouts:
            refinement, own = rollout.refinement, measured.columns.get(rollout.key, {})
            if refinement is not None and refinement.token_ids:
                entry = self._episode(step, rollout, refinement, measured)
                episodes.append({**entry, **own})
            else:
                others.append({**self._rollout(step, rollout), **own})
        self._write(EPISODES_FILE, episodes)
        self._write(ROLLOUTS_FILE, others)

    def _write(self, name: str, entries: Sequence[Mapping[str, Any]]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in entries))

    def _rollout(self, step: int, rollout: Rollout) -> dict[str, Any]:
        return self._beginning(step, rollout) | {
            "reward": rollout.reward,
            "verdict": rollout.verdict,
            "outcome": _outcome(rollout),
            "answer_tokens": self._tokens(rollout.response_ids),
        }

    def _episode(
        self,
        step: int,
        rollout: Rollout,
        refinement: Refinement,
        measured: Measured,
    ) -> dict[str, Any]:
        found = measured.refined.get(rollout.key)
        if found is not None and found.refinement.token_ids != refinement.token_ids:
            found = None  # A constraint of one's own may learn from another target.
        cross_entropy = None if found is None else found.cross_entropy
        # Teacher-forced, every token is asked for.
        asked = None if found is None or found.states is None else found.asked.tolist()
        return self._beginning(step, rollout) | {
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
            "ce": None if cross_entropy is None else _finite(cross_entropy.tolist()),
            "ce_asked": None if asked is None else [int(flag) for flag in asked],
            "ce_reading": measured.reading,
        }

    def _beginning(self, step: int, rollout: Rollout) -> dict[str, Any]:
        return {
            "step": step,
            "uid": rollout.uid,
            "problem_id": rollout.problem_id,
            "prompt": self._text(rollout.prompt_ids),
            "answer": self._text(rollout.response_ids),
        }

    def _text(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def _tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Each token by itself; decoded once, since a step has hundreds of thousands of them."""
        for token_id in set(token_ids) - self._words.keys():
            self._words[token_id] = self._tokenizer.decode([token_id])
        return [self._words[token_id] for token_id in token_ids]


def in_share(name: str, share: float) -> bool:
    """Whether a problem is in the share: by a hash of its name, so that runs choose alike."""
    digest = hashlib.sha256(name.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _finite(values: Sequence[float]) -> list[float | None]:
    """The values, None for those that JSON has no number for: off the token mask they may occur."""
    return [value if math.isfinite(value) else None for value in values]


def _outcome(rollout: Rollout) -> str:
    if rollout.refinement is not None:
        return rollout.refinement.outcome
    return NOT_REFINED if rollout.judged else UNJUDGED

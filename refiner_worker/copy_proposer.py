"""Speculation inside vLLM that expects the output to copy a stretch of the prompt, edited.

vLLM's own n-gram proposer needs its whole n-gram to agree: after each edit it falls silent until it
has seen enough, and what stands earlier in the prompt is preferred. Here every earlier position is
scored by how well the tokens before it agree with the last ones, mismatches forgiven, the recent
weighing most; what follows the best position is proposed, DRAFTED_PER_AGREEING tokens for each that
agrees. A replaced token thus costs nothing, an inserted or deleted one a step or two.

Positions of the siblings count as well: the requests under way that share most of their prompt,
which are refinements of one problem's other rollouts. One that is ahead knows how the right program
goes on where the rollout at hand does not. What is proposed changes no output, since vLLM verifies
it. Ours.

Loaded by vLLM 0.28 in the engine's process, by name (`speculative_config: {method: custom_class,
model: refiner_worker.copy_proposer.CopyProposer}`); vLLM calls that interface experimental.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit  # type: ignore[import-untyped]

WINDOW = 8
DECAY = 0.6
"""Weight of a token's agreement against that of its successor. At 0.6 a substitution (all agree but
the last: up to 1.46) outweighs a chance agreement of one token (1), and one token after an
insertion (1) outweighs the memory of the place before it (0.9)."""
LEAST_SCORE = 1.2
"""Of a position that is drafted from: the last two tokens agree (1.6), or the four before the last
(1.3). Drafts after one agreeing token were accepted too rarely to be worth their computation."""
DRAFTED_PER_AGREEING = 4
"""Two agreeing tokens fill a draft of 8."""
NEIGHBOURS = 2
"""Siblings of a request on either side, in the order of their tokens: 4 in all."""


class CopyProposer:
    """The proposer that vLLM instantiates; holds no state between steps."""

    def __init__(self, vllm_config: Any) -> None:
        self._count = vllm_config.speculative_config.num_speculative_tokens
        self._max_length = vllm_config.model_config.max_model_len
        nothing = np.zeros((2, 2), dtype=np.int32)
        proposal(nothing, np.ones(2, dtype=np.int32), 0, np.ones(1, dtype=np.int64), 1)  # compiles

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: np.ndarray,
        token_ids_cpu: np.ndarray,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Up to `num_speculative_tokens` tokens for each request that has just got some.

        Args:
            sampled_token_ids: B lists of tokens accepted in this step.
            num_tokens_no_spec: [B or more] lengths of prompt and output so far.
            token_ids_cpu: [B or more, max_model_len] the tokens themselves.
        """
        lengths = num_tokens_no_spec[: len(sampled_token_ids)]
        siblings = siblings_of(token_ids_cpu, lengths)
        proposals: list[list[int]] = []
        for row, sampled in enumerate(sampled_token_ids):
            room = min(self._count, self._max_length - int(lengths[row]) - 1)
            fits = bool(sampled) and room > 0
            proposals.append(
                proposal(token_ids_cpu, lengths, row, siblings[row], room).tolist() if fits else []
            )
        return proposals

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is none."""


def siblings_of(tokens: np.ndarray, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """[B, up to 2·NEIGHBOURS] the rows that begin most like each row, least alike first.

    In the order of their tokens, rows that begin alike stand together.
    """
    count = len(lengths)
    order = sorted(range(count), key=lambda row: tokens[row, : lengths[row]].tobytes())
    apart = [step for near in range(NEIGHBOURS, 0, -1) for step in (-near, near)]
    found = np.full((count, len(apart)), -1, dtype=np.int64)
    for place, row in enumerate(order):
        for column, step in enumerate(apart):
            if 0 <= place + step < count:
                found[row, column] = order[place + step]
    return found


@njit
def proposal(
    tokens: np.ndarray, lengths: np.ndarray, row: int, siblings: np.ndarray, most: int
) -> np.ndarray:
    """What stands after the position that agrees best with the end of a row.

    The length is DRAFTED_PER_AGREEING times the tokens of WINDOW that agree, and at most `most`;
    empty where no position reaches LEAST_SCORE. Of equal positions the last is taken, the row's own
    before a sibling's: the answer to copy stands at the prompt's end.

    Args:
        tokens: [B or more, longest] prompts and outputs so far. lengths: [B or more].
        row: the one to go on with. siblings: other rows to look into; -1 is none.
        most: tokens that may be proposed.
    """
    own = tokens[row, : lengths[row]]
    source, best_at, best_agree, best = own, -1, 0, LEAST_SCORE
    for sibling in siblings:
        if sibling >= 0:
            other = tokens[sibling, : lengths[sibling]]
            # Up to there a sibling is what the row itself is.
            start = max(_common(own, other) - 1, 0)
            score, at, agree = _best_position(other, start, own, best)
            if at >= 0:
                source, best_at, best_agree, best = other, at, agree, score
    score, at, agree = _best_position(own, 0, own, best)
    if at >= 0:
        source, best_at, best_agree = own, at, agree
    if best_at < 0:
        return own[:0]
    count = min(most, DRAFTED_PER_AGREEING * best_agree)
    return source[best_at + 1 : min(best_at + 1 + count, source.shape[0])]


@njit
def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens both begin with."""
    count = 0
    for at in range(min(one.shape[0], other.shape[0])):
        if one[at] != other[at]:
            break
        count += 1
    return count


@njit
def _best_position(
    source: np.ndarray, start: int, own: np.ndarray, least: float
) -> tuple[float, int, int]:
    """Score, position and agreeing tokens of the last best position; -1 where all are below."""
    last = own.shape[0] - 1
    newest, newest_but_one = own[last], own[max(last - 1, 0)]
    best, best_at, best_agree = least, -1, 0
    for at in range(start, source.shape[0] - 1):
        if source[at] != newest and source[max(at - 1, 0)] != newest_but_one:
            continue  # below LEAST_SCORE whatever stands before
        score, weight, agree = 0.0, 1.0, 0
        for back in range(min(WINDOW, at + 1, last + 1)):
            if source[at - back] == own[last - back]:
                score += weight
                agree += 1
            weight *= DECAY
        if score >= best:
            best, best_at, best_agree = score, at, agree
    return best, best_at, best_agree

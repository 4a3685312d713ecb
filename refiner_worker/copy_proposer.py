"""Speculation inside vLLM that expects the output to copy a stretch of the prompt, edited.

vLLM's own n-gram proposer needs its whole n-gram to agree: after each edit it falls silent until it
has seen enough, and what stands earlier in the prompt is preferred. Here every earlier position is
scored by how well the tokens before it agree with the last ones, mismatches forgiven, the recent
counting most; what follows the best position is proposed. A replaced token thus costs nothing, an
inserted or deleted one a step or two. If nothing agrees with a response's first token, it is
followed where it first occurs: most likely where the response to copy begins.

Positions of the siblings count as well: the requests, under way or just finished, that share most
of their prompt, which are refinements of one problem's other rollouts. One that is ahead knows how
the right program goes on where the rollout at hand does not. What is proposed changes no output,
since vLLM verifies it. Ours.

Loaded by vLLM (0.24 to 0.28) in the engine's process, by name (`speculative_config: {method:
custom_class, model: refiner_worker.copy_proposer.CopyProposer}`); vLLM calls that interface
experimental.
"""

from typing import Any

import numpy as np
from numba import njit  # type: ignore[import-untyped]

from refiner_worker.recent_texts import RecentTexts

WINDOW = 8
DECAY = 0.6
"""Weight of a token's agreement against that of its successor. At 0.6 a substitution (all agree but
the last: up to 1.46) outweighs a chance agreement of one token (1), and one token after an
insertion (1) outweighs the memory of the place before it (0.9)."""
LEAST_SCORE = 1.2
"""Of a position that is drafted from: the last two tokens agree (1.6), or the four before the last
(1.3). Drafts after one agreeing token were accepted too rarely to be worth their computation."""
BEYOND_AGREEING = 2
"""A draft is this much longer than the run of tokens that agree without a gap."""
FEW_REQUESTS = 8
"""With new tokens in a step, up to which a draft is as long as it may be: a pass over so few costs
much the same with it."""


class CopyProposer:
    """The proposer that vLLM instantiates; it remembers texts, which changes no output."""

    def __init__(self, vllm_config: Any) -> None:
        self._count = vllm_config.speculative_config.num_speculative_tokens
        self._max_length = vllm_config.model_config.max_model_len
        self._texts = RecentTexts(vllm_config.scheduler_config.max_num_seqs, self._max_length)
        rows = np.zeros((2, 1), dtype=np.int32)  # so that all is compiled before it is needed
        self.propose([[0], [0]], np.ones(2, dtype=np.int32), rows)
        self.forget()

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
        grown = np.array([len(sampled) for sampled in sampled_token_ids], dtype=np.int64)
        lengths = num_tokens_no_spec[: len(grown)].astype(np.int64)
        places, begun = self._texts.follow(token_ids_cpu, lengths, grown)
        siblings = self._texts.siblings(places)
        room = np.minimum(self._count, self._max_length - lengths - 1)
        full = np.count_nonzero(grown) <= FEW_REQUESTS
        tokens, known = self._texts.tokens, self._texts.lengths
        return [
            proposal(tokens, known, place, siblings[row], room[row], begun[row], full).tolist()
            if grown[row] and room[row] > 0
            else []
            for row, place in enumerate(places)
        ]

    def forget(self) -> None:
        """Forget all texts, for measurements that must not know the ones before."""
        self._texts.forget()

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is none."""


@njit
def proposal(
    tokens: np.ndarray,
    lengths: np.ndarray,
    place: int,
    siblings: np.ndarray,
    most: int,
    begun: bool,
    full: bool,
) -> np.ndarray:
    """What stands after the position that agrees best with the end of a text; may be empty.

    Of equal positions the last is taken, the text's own before a sibling's: the response to copy
    stands at the prompt's end. Where no position reaches LEAST_SCORE there is no proposal, unless
    the text has just begun.

    Args:
        tokens: [places, longest] prompts and outputs so far. lengths: [places].
        place: of the text to go on with. siblings: other places to look into; -1 is none.
        most: tokens that may be proposed.
        begun: the text's last token is its response's first; `most` are proposed.
        full: propose `most` wherever anything is proposed.
    """
    own = tokens[place, : lengths[place]]
    source, best_at, best_run, best = own, -1, 0, LEAST_SCORE
    for sibling in siblings:
        if sibling >= 0:
            other = tokens[sibling, : lengths[sibling]]
            # Up to there a sibling is what the text itself is.
            start = max(_common(own, other) - 1, 0)
            score, at, run = _best_position(other, start, own, best)
            if at >= 0:
                source, best_at, best_run, best = other, at, run, score
    score, at, run = _best_position(own, 0, own, best)
    if at >= 0:
        source, best_at, best_run = own, at, run
    if best_at < 0 and begun:
        best_at = _first(own)
    if best_at < 0:
        return own[:0]
    count = most if full or begun else min(most, best_run + BEYOND_AGREEING)
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
def _first(own: np.ndarray) -> int:
    """Where the last token occurs first before its own place; -1 if it does not."""
    for at in range(own.shape[0] - 1):
        if own[at] == own[-1]:
            return at
    return -1


@njit
def _best_position(
    source: np.ndarray, start: int, own: np.ndarray, least: float
) -> tuple[float, int, int]:
    """The last best position: its score, where it is, and how many tokens agree without a gap.

    The position is -1 if all are below `least`.
    """
    last = own.shape[0] - 1
    newest, newest_but_one = own[last], own[max(last - 1, 0)]
    best, best_at, best_run = least, -1, 0
    for at in range(start, source.shape[0] - 1):
        if source[at] != newest and source[max(at - 1, 0)] != newest_but_one:
            continue  # below LEAST_SCORE whatever stands before
        score, weight, run = 0.0, 1.0, 0
        for back in range(min(WINDOW, at + 1, last + 1)):
            if source[at - back] == own[last - back]:
                score += weight
                if run == back:
                    run += 1
            weight *= DECAY
        if score >= best:
            best, best_at, best_run = score, at, run
    return best, best_at, best_run

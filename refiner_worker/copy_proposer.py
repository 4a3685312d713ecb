"""Speculation inside vLLM that expects the output to copy a stretch of the prompt, edited.

vLLM's own n-gram proposer needs its whole n-gram to agree: after each edit it falls silent until it
has seen enough, and what stands earlier in the prompt is preferred. Here every earlier position is
scored by how well the tokens before it agree with the last ones, mismatches forgiven, the recent
weighing most; what follows the best position is proposed, DRAFTED_PER_AGREEING tokens for each that
agrees. A replaced token thus costs nothing, an inserted or deleted one a step or two. What is
proposed changes no output, since vLLM verifies it. Ours.

Loaded by vLLM 0.28 in the engine's process, by name (`speculative_config: {method: custom_class,
model: refiner_worker.copy_proposer.CopyProposer}`); vLLM calls that interface experimental.
"""

from typing import Any

import numpy as np
from numba import njit  # type: ignore[import-untyped]

WINDOW = 8
DECAY = 0.6
"""Weight of a token's agreement against that of its successor. At 0.6 a substitution (all agree but
the last: up to 0.6 / 0.4 = 1.5) outweighs a chance agreement of one token (1), and one token after
an insertion (1) outweighs the memory of the place before it (0.6² / 0.4 = 0.9)."""
LEAST_SCORE = 1.0
DRAFTED_PER_AGREEING = 4
"""Two agreeing tokens fill a draft of 8; with fewer a copy starts slower."""


class CopyProposer:
    """The proposer that vLLM instantiates; holds no state between steps."""

    def __init__(self, vllm_config: Any) -> None:
        self._count = vllm_config.speculative_config.num_speculative_tokens
        self._max_length = vllm_config.model_config.max_model_len
        continuation(np.zeros(2, dtype=np.int32), 1)  # compiles

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
            num_tokens_no_spec: B lengths of prompt and output so far.
            token_ids_cpu: [B, max_model_len] the tokens themselves.
        """
        proposals: list[list[int]] = []
        for sampled, length, tokens in zip(
            sampled_token_ids, num_tokens_no_spec, token_ids_cpu, strict=False
        ):
            room = min(self._count, self._max_length - int(length) - 1)
            fits = bool(sampled) and room > 0
            proposals.append(continuation(tokens[:length], room).tolist() if fits else [])
        return proposals

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is none."""


@njit
def continuation(tokens: np.ndarray, most: int) -> np.ndarray:
    """What stands after the position that agrees best with the end of `tokens`.

    The length is DRAFTED_PER_AGREEING times the tokens of WINDOW that agree, and at most `most`;
    empty where no position reaches LEAST_SCORE. Of equal positions the last is taken: the answer
    to copy stands at the prompt's end.
    """
    last = tokens.shape[0] - 1
    best, best_at, best_agree = LEAST_SCORE, -1, 0
    for at in range(last):
        score, weight, agree = 0.0, 1.0, 0
        for back in range(min(WINDOW, at + 1)):
            if tokens[at - back] == tokens[last - back]:
                score += weight
                agree += 1
            weight *= DECAY
        if score >= best:
            best, best_at, best_agree = score, at, agree
    if best_at < 0:
        return tokens[:0]
    count = min(most, DRAFTED_PER_AGREEING * best_agree)
    return tokens[best_at + 1 : min(best_at + 1 + count, last + 1)]

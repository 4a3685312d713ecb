"""What one refinement may cost, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum


class Outcome(StrEnum):
    """How the refinement of one rollout ended.

    TOO_LONG was not sent, since the prompt is over its budget; NO_RESPONSE neither, since the
    rollout is reasoning that was cut off, with nothing to refine. TRUNCATED did not end within the
    limit; REPETITIVE neither, and was caught in a loop. EMPTY is nothing, blanks or reasoning
    alone, WRONG_SCRIPT a response in letters that neither prompt nor rollout uses. DEADLINE came
    too late for its own limit, STEP_DEADLINE for the step's; ENGINE_ERROR never came.
    """

    REFINED = "refined"
    VERBATIM = "verbatim"
    TOO_LONG = "too_long"
    NO_RESPONSE = "no_response"
    TRUNCATED = "truncated"
    REPETITIVE = "repetitive"
    EMPTY = "empty"
    WRONG_SCRIPT = "wrong_script"
    DEADLINE = "deadline"
    STEP_DEADLINE = "step_deadline"
    ENGINE_ERROR = "engine_error"

    @property
    def failed(self) -> bool:
        """Whether no usable refinement came of it."""
        return self not in (Outcome.REFINED, Outcome.VERBATIM)


@dataclass(frozen=True)
class RefineLimits:
    """Bounds on one refinement.

    Attributes:
        max_prompt_tokens: longest refiner prompt (template, problem and response together).
        max_response_tokens: longest refinement; what does not end within it is dropped.
        deadline_s: seconds from asking to answer, waiting in the queue included.
        max_concurrency: refinements of this client under way at once.
        block_tokens: longest block of a response that is refined at a time; None for all of it.
    """

    max_prompt_tokens: int
    max_response_tokens: int
    deadline_s: float
    max_concurrency: int
    block_tokens: int | None = None

    @property
    def max_output_tokens(self) -> int:
        """Longest output of one request: a block may grow to twice its size (ours)."""
        if self.block_tokens is None:
            return self.max_response_tokens
        return min(2 * self.block_tokens, self.max_response_tokens)

    @property
    def context_tokens(self) -> int:
        """The context that the refiner's servers need.

        One more than prompt and output: verl keeps a place free on SGLang, and an output cut short
        there would be taken for a whole one.
        """
        return self.max_prompt_tokens + self.max_output_tokens + 1


@dataclass(frozen=True)
class Written:
    """How the refiner came to write a refinement.

    Attributes:
        context_ids: what it had read and written before it.
        start: index of the first token that it wrote; the rollout's reasoning may stand before.
        ended: whether it also wrote the last token, or that was set for it.
    """

    context_ids: tuple[int, ...]
    start: int
    ended: bool

    def after(self, tokens: int) -> Written:
        """The same behind so many tokens that it did not write."""
        return replace(self, start=self.start + tokens)


@dataclass(frozen=True)
class RefinerReply:
    """One refined response: token ids as the policy would have written them, EOS included.

    `token_ids` is empty if the outcome has failed and equals the rollout if it is verbatim.
    `generated_tokens`, `engine_calls` and `scored_tokens` count what the engine did for it,
    whatever became of it, without the call that was under way when it failed or came too late; see
    `engine.Decoded`. `written` is None if the refiner did not write the refinement in one piece.
    """

    outcome: Outcome
    token_ids: tuple[int, ...] = ()
    generated_tokens: int = 0
    engine_calls: int = 0
    scored_tokens: int = 0
    written: Written | None = field(default=None, compare=False)

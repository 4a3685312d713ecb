"""Asks the refiner for one refinement, within a deadline and with a typed outcome.

The client knows nothing of the trainer, of Ray or of verl: it needs an object with verl's
token-in/token-out `generate`, a tokenizer and a template. It never raises for a sample: whatever
goes wrong with one refinement is an outcome, so that the rollout goes on without a constraint.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from transformers import PreTrainedTokenizerBase

from refiner_worker.acceptance import Law
from refiner_worker.decoding import Decoding, VerifySettings
from refiner_worker.engine import Decoded, Engine, Generator
from refiner_worker.prompts import RefineTemplate, parse_refinement, render
from refiner_worker.repetition import loops

__all__ = ["Generator", "Outcome", "RefineLimits", "Refinement", "RefinerClient"]

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How the refinement of one rollout ended.

    TOO_LONG was not sent, since the prompt is over its budget. TRUNCATED did not end within the
    limit; REPETITIVE neither, and was caught in a loop. EMPTY is an answer of blanks or nothing.
    DEADLINE came too late, ENGINE_ERROR never.
    """

    REFINED = "refined"
    VERBATIM = "verbatim"
    TOO_LONG = "too_long"
    TRUNCATED = "truncated"
    REPETITIVE = "repetitive"
    EMPTY = "empty"
    DEADLINE = "deadline"
    ENGINE_ERROR = "engine_error"

    @property
    def failed(self) -> bool:
        """Whether no usable refinement came of it."""
        return self not in (Outcome.REFINED, Outcome.VERBATIM)


@dataclass(frozen=True)
class RefineLimits:
    """Bounds on one refinement.

    Attributes:
        max_prompt_tokens: longest refiner prompt (template, problem and answer together).
        max_response_tokens: longest refinement; what does not end within it is dropped.
        deadline_s: seconds from asking to answer, waiting in the queue included.
        max_concurrency: refinements of this client under way at once.
    """

    max_prompt_tokens: int
    max_response_tokens: int
    deadline_s: float
    max_concurrency: int


@dataclass(frozen=True)
class Refinement:
    """One refined response: token ids as the policy would have written them, EOS included.

    `token_ids` is empty where the outcome has failed and equals the answer where it is verbatim.
    `generated_tokens`, `engine_calls` and `scored_tokens` count what the engine did for it,
    whatever became of it; see `engine.Decoded`. All are 0 where no answer came in time.
    """

    outcome: Outcome
    token_ids: tuple[int, ...] = ()
    generated_tokens: int = 0
    engine_calls: int = 0
    scored_tokens: int = 0


class RefinerClient:
    """Refines rollouts one at a time; safe to share between the tasks of one event loop.

    Args:
        generator: verl's client of the refiner's servers.
        tokenizer: the policy's, which is the refiner's as well.
        template: what the refiner is asked.
        limits: bounds on one refinement.
        temperature: of the refiner; 0 is greedy.
        decoding: how refinements are decoded. `ngram` and `copy` send what `plain` sends: the
            speculation is the servers' (`engine.server_overrides`).
        end_ids: tokens beside the tokenizer's EOS that end an output (the model's generation
            config may name some); used by `verify`.
        sampling_extra: sampling parameters that only this engine understands, sent with each
            request (`engine.sampling_extra`).
    """

    def __init__(
        self,
        generator: Generator,
        tokenizer: PreTrainedTokenizerBase,
        template: RefineTemplate,
        limits: RefineLimits,
        temperature: float,
        decoding: Decoding | str = Decoding.PLAIN,
        end_ids: Collection[int] = (),
        sampling_extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._engine = Engine(generator, temperature, sampling_extra)
        self._tokenizer = tokenizer
        self._template = template
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.max_concurrency)
        self._verify: VerifySettings | None = None
        if Decoding(decoding) is Decoding.VERIFY:
            self._verify = VerifySettings(
                # The model's last layer may be padded beyond the tokenizer; twice is ample.
                law=Law(temperature, vocabulary_size=2 * len(tokenizer)),
                max_tokens=limits.max_response_tokens,
                end_ids=frozenset({tokenizer.eos_token_id, *end_ids}),
            )

    async def refine(
        self, messages: Sequence[Mapping[str, str]], answer_ids: Sequence[int]
    ) -> Refinement:
        """Refine one answer to a chat prompt.

        Args:
            messages: the prompt s0 as chat messages.
            answer_ids: T token ids of the rollout a, with or without EOS.
        """
        prompt_ids = await asyncio.to_thread(self._prompt_ids, messages, answer_ids)
        if len(prompt_ids) > self._limits.max_prompt_tokens:
            return Refinement(Outcome.TOO_LONG)
        try:
            async with asyncio.timeout(self._limits.deadline_s), self._slots:
                decoded = await self._decode(prompt_ids, answer_ids)
        except TimeoutError:
            return Refinement(Outcome.DEADLINE)
        except Exception:
            # The engine is another process on another machine: it can fail in any way, and a
            # failed refinement must not take the rollout with it.
            logger.exception("the refiner's engine failed on one sample; it goes on unrefined")
            return Refinement(Outcome.ENGINE_ERROR)
        return replace(
            self._read(list(decoded.token_ids), answer_ids),
            generated_tokens=decoded.generated_tokens,
            engine_calls=decoded.engine_calls,
            scored_tokens=decoded.scored_tokens,
        )

    async def _decode(self, prompt_ids: list[int], answer_ids: Sequence[int]) -> Decoded:
        if self._verify is not None:
            return await self._engine.verify(prompt_ids, answer_ids, self._verify)
        return await self._engine.plain(prompt_ids, self._limits.max_response_tokens)

    def _prompt_ids(
        self, messages: Sequence[Mapping[str, str]], answer_ids: Sequence[int]
    ) -> list[int]:
        refine_messages = render(
            self._template, [dict(message) for message in messages], self._text(answer_ids)
        )
        text = self._tokenizer.apply_chat_template(
            refine_messages, add_generation_prompt=True, tokenize=False
        )
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _read(self, output_ids: list[int], answer_ids: Sequence[int]) -> Refinement:
        ended = _ends(output_ids, self._eos)
        if not ended and len(output_ids) >= self._limits.max_response_tokens:
            return Refinement(Outcome.REPETITIVE if loops(output_ids) else Outcome.TRUNCATED)
        text = self._text(output_ids)
        parsed = parse_refinement(self._template, text)
        if not parsed.strip():
            return Refinement(Outcome.EMPTY)
        if parsed == self._text(answer_ids):
            return Refinement(Outcome.VERBATIM, tuple(answer_ids))
        if parsed != text:
            output_ids = self._tokenizer.encode(parsed, add_special_tokens=False)
        if not _ends(output_ids, self._eos):
            output_ids = [*output_ids, self._eos]
        if len(output_ids) > self._limits.max_response_tokens:
            return Refinement(Outcome.TRUNCATED)
        return Refinement(Outcome.REFINED, tuple(output_ids))

    @property
    def _eos(self) -> int:
        return self._tokenizer.eos_token_id

    def _text(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)


def _ends(token_ids: Sequence[int], eos: int) -> bool:
    return bool(token_ids) and token_ids[-1] == eos

"""Asks the refiner for one refinement, within a deadline and with a typed outcome.

The client knows nothing of the trainer, of Ray or of verl: it needs an object with verl's
token-in/token-out `generate`, a tokenizer and a template. It never raises for a sample: whatever
goes wrong with one refinement is an outcome, so that the rollout goes on without a constraint.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from uuid import uuid4

from transformers import PreTrainedTokenizerBase

from refiner_worker.prompts import RefineTemplate, parse_refinement, render

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How the refinement of one rollout ended."""

    REFINED = "refined"
    VERBATIM = "verbatim"
    TOO_LONG = "too_long"
    TRUNCATED = "truncated"
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
    `generated_tokens` counts what the engine decoded, whatever became of it.
    """

    outcome: Outcome
    token_ids: tuple[int, ...] = ()
    generated_tokens: int = 0


class Generator(Protocol):
    """verl's `LLMServerClient.generate`: token ids in, an object with `token_ids` out."""

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any: ...


class RefinerClient:
    """Refines rollouts one at a time; safe to share between the tasks of one event loop."""

    def __init__(
        self,
        generator: Generator,
        tokenizer: PreTrainedTokenizerBase,
        template: RefineTemplate,
        limits: RefineLimits,
        temperature: float,
    ) -> None:
        self._generator = generator
        self._tokenizer = tokenizer
        self._template = template
        self._limits = limits
        self._temperature = temperature
        self._slots = asyncio.Semaphore(limits.max_concurrency)

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
                output_ids = await self._generate(prompt_ids)
        except TimeoutError:
            return Refinement(Outcome.DEADLINE)
        except Exception:
            # The engine is another process on another machine: it can fail in any way, and a
            # failed refinement must not take the rollout with it.
            logger.exception("the refiner's engine failed on one sample; it goes on unrefined")
            return Refinement(Outcome.ENGINE_ERROR)
        return self._read(output_ids, answer_ids)

    async def _generate(self, prompt_ids: list[int]) -> list[int]:
        output = await self._generator.generate(
            uuid4().hex,
            prompt_ids=prompt_ids,
            sampling_params={
                "temperature": self._temperature,
                "top_p": 1.0,
                "top_k": -1,
                "max_tokens": self._limits.max_response_tokens,
            },
        )
        return list(output.token_ids)

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
        generated = len(output_ids)
        if not _ends(output_ids, self._eos) and generated >= self._limits.max_response_tokens:
            return Refinement(Outcome.TRUNCATED, generated_tokens=generated)
        text = self._text(output_ids)
        parsed = parse_refinement(self._template, text)
        if not parsed.strip():
            return Refinement(Outcome.EMPTY, generated_tokens=generated)
        if parsed == self._text(answer_ids):
            return Refinement(Outcome.VERBATIM, tuple(answer_ids), generated)
        if parsed != text:
            output_ids = self._tokenizer.encode(parsed, add_special_tokens=False)
        if not _ends(output_ids, self._eos):
            output_ids = [*output_ids, self._eos]
        if len(output_ids) > self._limits.max_response_tokens:
            return Refinement(Outcome.TRUNCATED, generated_tokens=generated)
        return Refinement(Outcome.REFINED, tuple(output_ids), generated)

    @property
    def _eos(self) -> int:
        return self._tokenizer.eos_token_id

    def _text(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)


def _ends(token_ids: Sequence[int], eos: int) -> bool:
    return bool(token_ids) and token_ids[-1] == eos

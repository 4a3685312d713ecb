"""Asks the refiner for one refinement, within a deadline and with a typed outcome.

The client knows nothing of the trainer, of Ray or of verl: it needs an object with verl's
token-in/token-out `generate`, a tokenizer and a template. It never raises for a sample: whatever
goes wrong with one refinement is an outcome, so that the rollout goes on without a constraint.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from refiner_worker.acceptance import Sampling
from refiner_worker.blocks import plan_blocks
from refiner_worker.chat import Chat
from refiner_worker.decoding import Decoding, VerifySettings
from refiner_worker.engine import Decoded, Engine, Generator
from refiner_worker.outcome import Outcome, RefineLimits, RefinerReply
from refiner_worker.prompts import RefineTemplate, problem_text, render
from refiner_worker.reading import AnswerReader
from refiner_worker.script import is_foreign
from refiner_worker.top_tokens import TopTokens, top_tokens

__all__ = ["Generator", "Outcome", "RefineLimits", "RefineTask", "RefinerClient", "RefinerReply"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RefineTask:
    """One response to refine.

    Attributes:
        messages: the prompt s0 as chat messages.
        answer_ids: T token ids of the rollout a, with or without EOS.
        feedback: what the judge says of it, for templates that tell the refiner.
        until_s: the event loop's time after which the step no longer wants it; None for never.
    """

    messages: Sequence[Mapping[str, str]]
    answer_ids: Sequence[int]
    feedback: str = ""
    until_s: float | None = None


class RefinerClient:
    """Refines rollouts one at a time; safe to share between the tasks of one event loop.

    Args:
        generator: verl's client of the refiner's servers.
        chat: how the policy's chats are written; its tokenizer is the refiner's as well.
        template: what the refiner is asked.
        limits: bounds on one refinement.
        temperature: of the refiner; 0 is greedy.
        decoding: how refinements are decoded. `ngram` and `copy` send what `plain` does: the
            speculation is the servers' (`engine.server_overrides`).
        end_ids: tokens beside the policy's at which the refiner's engine stops (the refiner's
            generation config may name some).
        sampling_extra: sampling parameters that only this engine understands, sent with each
            request (`engine.sampling_extra`).
    """

    def __init__(
        self,
        generator: Generator,
        chat: Chat,
        template: RefineTemplate,
        limits: RefineLimits,
        temperature: float,
        decoding: Decoding | str = Decoding.PLAIN,
        end_ids: Collection[int] = (),
        sampling_extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._engine = Engine(generator, temperature, sampling_extra)
        self._template = template
        self._limits = limits
        self._chat = chat
        self._reader = AnswerReader(chat, template, end_ids)
        self._slots = asyncio.Semaphore(limits.max_concurrency)
        self._seen_errors: set[type[Exception]] = set()
        self._verify: VerifySettings | None = None
        if Decoding(decoding) is Decoding.VERIFY:
            self._verify = VerifySettings(
                # The model's last layer may be padded beyond the tokenizer; twice is ample.
                sampling=Sampling(temperature, vocabulary_size=2 * len(chat.tokenizer)),
                max_tokens=limits.max_output_tokens,
                end_ids=self._reader.end_ids,
            )

    async def refine(self, task: RefineTask) -> RefinerReply:
        """Refine one response; see `RefineTask`."""
        ends_s = asyncio.get_running_loop().time() + self._limits.deadline_s
        late = Outcome.DEADLINE
        if task.until_s is not None and task.until_s < ends_s:
            ends_s, late = task.until_s, Outcome.STEP_DEADLINE
        spent = _Spent()
        try:
            async with asyncio.timeout_at(ends_s), self._slots:
                refinement = await self._refined(task, spent)
        except TimeoutError:
            return spent.on(RefinerReply(late))
        except Exception as error:
            # The engine is another process on another machine: it can fail in any way, and a
            # failed refinement must not take the rollout with it.
            self._complain(error)
            return spent.on(RefinerReply(Outcome.ENGINE_ERROR))
        return spent.on(self._in_known_letters(task, refinement))

    async def top_tokens(
        self, reply: RefinerReply, count: int, until_s: float | None = None
    ) -> TopTokens | None:
        """The refiner's likeliest `count` tokens over each token of a refinement that it has made.

        One more request, within the deadline of a refinement and before `until_s`; None if it could
        not be had, or not be said for the tokens that are trained on.
        """
        written, token_ids = reply.written, reply.token_ids
        if written is None:
            return None
        end = len(token_ids) - (not written.ended)
        context_ids = (*written.context_ids, *token_ids[written.start : end])
        ends_s = asyncio.get_running_loop().time() + self._limits.deadline_s
        try:
            async with asyncio.timeout_at(min(ends_s, until_s or ends_s)), self._slots:
                scores = await self._engine.score(context_ids, end - written.start, count)
        except TimeoutError:
            return None
        except Exception as error:
            # As in `refine`: the constraint goes on without the distributions of one sample.
            self._complain(error)
            return None
        return top_tokens(token_ids, written.start, scores, count)

    def _complain(self, error: Exception) -> None:
        """Log the first failure of a kind in full: a dead server fails all its samples at once."""
        logger.error(
            "the refiner's engine failed on one sample, which goes on without: %s",
            type(error).__name__,
            exc_info=None if type(error) in self._seen_errors else error,
        )
        self._seen_errors.add(type(error))

    async def _refined(self, task: RefineTask, spent: "_Spent") -> RefinerReply:
        """Refine what follows the rollout's reasoning, which stays as it is."""
        reasoning = self._reader.reasoning(task.answer_ids)
        if reasoning is None:
            return RefinerReply(Outcome.NO_RESPONSE)
        task = replace(task, answer_ids=task.answer_ids[len(reasoning) :])
        refined = await self._refined_response(task, spent)
        if refined.outcome.failed or not reasoning:
            return refined
        if len(reasoning) + len(refined.token_ids) > self._limits.max_response_tokens:
            return RefinerReply(Outcome.TRUNCATED)
        written = refined.written and refined.written.after(len(reasoning))
        return replace(refined, token_ids=reasoning + refined.token_ids, written=written)

    async def _refined_response(self, task: RefineTask, spent: "_Spent") -> RefinerReply:
        if self._limits.block_tokens is not None:
            return await self._by_blocks(task, self._limits.block_tokens, spent)
        prompt_ids = await asyncio.to_thread(self._prompt_ids, task, task.answer_ids)
        if len(prompt_ids) > self._limits.max_prompt_tokens:
            return RefinerReply(Outcome.TOO_LONG)
        output_ids = await self._decode(prompt_ids, task.answer_ids, spent)
        reply = self._reader.answer(output_ids, task.answer_ids, self._limits.max_output_tokens)
        if reply.outcome.failed:
            return reply
        written = self._reader.written(prompt_ids, output_ids, reply.token_ids)
        return replace(reply, written=written)

    async def _by_blocks(
        self, task: RefineTask, block_tokens: int, spent: "_Spent"
    ) -> RefinerReply:
        """Refine block after block, each given what the refiner made of those before it."""
        read, limits = self._reader, self._limits
        blocks = plan_blocks(read.without_end(task.answer_ids), block_tokens, read.ends_line)
        written: tuple[int, ...] = ()
        for index, block in enumerate(blocks):
            if len(blocks) > 1 and not read.text(block).strip():
                written += block
                continue
            prompt_ids = await asyncio.to_thread(self._prompt_ids, task, block, written)
            if len(prompt_ids) > limits.max_prompt_tokens:
                return RefinerReply(Outcome.TOO_LONG)
            refined = read.block(
                await self._decode(prompt_ids, block, spent),
                block,
                limits.max_output_tokens,
                first=index == 0,
                last=index == len(blocks) - 1,
            )
            if refined.outcome.failed:
                return refined
            written += refined.token_ids
        if read.text(written) == read.text(task.answer_ids):
            return RefinerReply(Outcome.VERBATIM, tuple(task.answer_ids))
        return read.ended(written, limits.max_response_tokens)

    async def _decode(
        self, prompt_ids: list[int], draft_ids: Sequence[int], spent: "_Spent"
    ) -> tuple[int, ...]:
        if self._verify is None:
            decoded = await self._engine.plain(prompt_ids, self._limits.max_output_tokens)
        else:
            decoded = await self._engine.verify(prompt_ids, draft_ids, self._verify)
        spent.add(decoded)
        return decoded.token_ids

    def _prompt_ids(
        self, task: RefineTask, answer_ids: Sequence[int], written: Sequence[int] = ()
    ) -> list[int]:
        """The refiner's prompt; of what is written already as much of the end as fits."""
        prompt_ids = self._prompt_of(task, answer_ids, written)
        while written and len(prompt_ids) > self._limits.max_prompt_tokens:
            written = written[len(prompt_ids) - self._limits.max_prompt_tokens :]
            prompt_ids = self._prompt_of(task, answer_ids, written)
        return prompt_ids

    def _prompt_of(
        self, task: RefineTask, answer_ids: Sequence[int], written: Sequence[int]
    ) -> list[int]:
        refine_messages = render(
            self._template,
            [dict(message) for message in task.messages],
            self._reader.text(answer_ids),
            before=self._reader.text(written),
            feedback=task.feedback,
        )
        return self._chat.prompt_ids(refine_messages)

    def _in_known_letters(self, task: RefineTask, refinement: RefinerReply) -> RefinerReply:
        if refinement.outcome is not Outcome.REFINED:
            return refinement
        sources = problem_text(task.messages), self._reader.text(task.answer_ids)
        if is_foreign(self._reader.text(refinement.token_ids), *sources):
            return RefinerReply(Outcome.WRONG_SCRIPT)
        return refinement


class _Spent:
    """What the engine has done for one refinement so far."""

    def __init__(self) -> None:
        self._parts: list[Decoded] = []

    def add(self, decoded: Decoded) -> None:
        self._parts.append(decoded)

    def on(self, refinement: RefinerReply) -> RefinerReply:
        """The refinement with these costs."""
        return replace(
            refinement,
            generated_tokens=sum(part.generated_tokens for part in self._parts),
            engine_calls=sum(part.engine_calls for part in self._parts),
            scored_tokens=sum(part.scored_tokens for part in self._parts),
        )

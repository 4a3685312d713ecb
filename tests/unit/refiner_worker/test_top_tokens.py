"""The refiner's distributions over a refinement: of which tokens, in which state, at what cost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scripted_engine import Distribution, FakeGenerator, TableGenerator

from refiner_worker.chat import Chat
from refiner_worker.client import Outcome, RefineLimits, RefinerClient, RefinerReply, RefineTask
from refiner_worker.prompts import RefineTemplate
from refiner_worker.top_tokens import TopTokens

Make = Callable[[str], Any]
PLAIN = RefineTemplate("plain", 1, None, "{problem}|{answer}")
MARKED = RefineTemplate("marked", 1, None, "{problem}|[{answer}]", "[", "]")
LIMITS = RefineLimits(200, 80, deadline_s=5.0, max_concurrency=2)
MESSAGES = [{"role": "user", "content": "sum"}]
SURE = 0.75


def writer(output: list[int]) -> TableGenerator:
    """Writes `output`, each token with probability 3/4; next likeliest is the token after it.

    After anything else it would write token 1.
    """

    def model(context: tuple[int, ...]) -> Distribution:
        for length in range(len(output), -1, -1):
            if length == 0 or context[-length:] == tuple(output[:length]):
                wanted = output[length] if length < len(output) else 1
                break
        listed = {wanted: SURE, wanted + 1: 0.2}
        others = [token for token in range(300) if token not in listed]
        return listed | {token: 0.05 / len(others) for token in others}

    return TableGenerator(model, draw=lambda distribution: 0, end_ids=output[-1:])


def refined(
    tokenizer: Any,
    generator: Any,
    answer: list[int],
    template: RefineTemplate = PLAIN,
    count: int = 2,
    **others: Any,
) -> tuple[RefinerReply, TopTokens | None]:
    async def call() -> tuple[RefinerReply, TopTokens | None]:
        client = RefinerClient(generator, Chat.of(tokenizer), template, LIMITS, 0.0, **others)
        reply = await client.refine(RefineTask(MESSAGES, answer))
        return reply, await client.top_tokens(reply, count)

    return asyncio.run(call())


def encoded(tokenizer: Any, text: str) -> list[int]:
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


def check(top: TopTokens | None, token_ids: tuple[int, ...], start: int, end: int) -> None:
    """The refiner's are the states from start to end; the others are certain of their token."""
    assert top is not None
    assert (top.start, top.end) == (start, end)
    assert top.token_ids.shape == top.log_probs.shape == (len(token_ids), 2)
    assert top.token_ids[:, 0].tolist() == list(token_ids)
    for state in range(len(token_ids)):
        if start <= state < end:
            assert top.token_ids[state, 1] == token_ids[state] + 1
            expected = [math.log(SURE), math.log(0.2)]
        else:
            expected = [0.0, -math.inf]
        assert top.log_probs[state].tolist() == pytest.approx(expected)


@pytest.fixture
def tokenizer(chat_tokenizer: Make) -> Any:
    return chat_tokenizer("chatml")


@pytest.mark.parametrize("decoding", ["plain", "verify", "ngram", "copy"])
def test_every_token_has_the_distribution_of_the_state_it_was_written_in(
    tokenizer: Any, decoding: str
) -> None:
    output = encoded(tokenizer, "acx")
    generator = writer(output)
    reply, top = refined(tokenizer, generator, encoded(tokenizer, "abx"), decoding=decoding)
    assert (reply.outcome, reply.token_ids) == (Outcome.REFINED, tuple(output))
    check(top, reply.token_ids, 0, len(output))
    length, parameters = generator.calls[-1]
    assert (parameters["max_tokens"], parameters["prompt_logprobs"]) == (1, 2)
    if decoding != "verify":
        assert length == generator.calls[0][0] + len(output)


def test_what_the_refiner_wrote_before_its_answer_is_read_again_and_not_taught(
    tokenizer: Any,
) -> None:
    """Echoed marks; the end token came after the closing one, so it is certain."""
    output = encoded(tokenizer, "[ac]")
    generator = writer(output)
    reply, top = refined(tokenizer, generator, encoded(tokenizer, "ab"), MARKED)
    assert reply.token_ids == tuple(encoded(tokenizer, "ac"))
    check(top, reply.token_ids, 0, 2)
    prompt, scored = (length for length, _ in generator.calls)
    assert scored == prompt + len("[ac")


def test_the_rollouts_own_reasoning_is_certain_and_the_refiners_is_read_again(
    chat_tokenizer: Make,
) -> None:
    tokenizer = chat_tokenizer("thinking")
    own, theirs = "<think>why</think>", "<think>ac</think>"
    output = encoded(tokenizer, theirs + "ac")
    generator = writer(output)
    reply, top = refined(tokenizer, generator, encoded(tokenizer, own + "ab"))
    reasoning = tokenizer.encode(own, add_special_tokens=False)
    assert reply.token_ids == (*reasoning, *encoded(tokenizer, "ac"))
    check(top, reply.token_ids, len(reasoning), len(reply.token_ids))
    prompt, scored = (length for length, _ in generator.calls)
    assert scored == prompt + len(output)


def test_an_end_that_was_set_for_the_refiner_is_certain(tokenizer: Any) -> None:
    """It stopped at another token of its own."""
    stop = tokenizer.encode("!", add_special_tokens=False)
    generator = writer([*tokenizer.encode("ac", add_special_tokens=False), *stop])
    reply, top = refined(tokenizer, generator, encoded(tokenizer, "ab"), end_ids=stop)
    assert reply.token_ids == tuple(encoded(tokenizer, "ac"))
    check(top, reply.token_ids, 0, 2)


def test_a_verbatim_refinement_keeps_the_rollouts_tokens_and_is_scored_on_them(
    tokenizer: Any,
) -> None:
    output = encoded(tokenizer, "ab")
    reply, top = refined(tokenizer, writer(output), output[:-1])
    assert (reply.outcome, reply.token_ids) == (Outcome.VERBATIM, tuple(output[:-1]))
    check(top, reply.token_ids, 0, 2)


def test_an_answer_that_begins_within_a_token_has_none(tokenizer: Any) -> None:
    class Joined:
        """One token for the opening mark with the answer's first letter."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def decode(self, ids: list[int], **options: Any) -> str:
            return "".join("[a" if i == 999 else tokenizer.decode([i], **options) for i in ids)

        def __len__(self) -> int:
            return len(tokenizer)

    output = [999, *encoded(tokenizer, "c]")]
    generator = FakeGenerator(lambda prompt: output)
    answer = encoded(tokenizer, "ab")

    async def call() -> tuple[RefinerReply, TopTokens | None]:
        chat = Chat.of(tokenizer)
        chat = Chat(Joined(), chat.options, chat.end, chat.opens_reasoning)
        client = RefinerClient(generator, chat, MARKED, LIMITS, 0.0)
        reply = await client.refine(RefineTask(MESSAGES, answer))
        return reply, await client.top_tokens(reply, 2)

    reply, top = asyncio.run(call())
    assert reply.token_ids == tuple(encoded(tokenizer, "ac"))
    assert (reply.written, top, len(generator.requests)) == (None, None, 1)


def test_an_engine_that_fails_or_hangs_leaves_the_refinement_without_them(tokenizer: Any) -> None:
    class Fails(TableGenerator):
        async def generate(self, request_id: str, **request: Any) -> Any:
            if self.calls:
                raise RuntimeError("engine is gone")
            return await super().generate(request_id, **request)

    class Hangs(TableGenerator):
        async def generate(self, request_id: str, **request: Any) -> Any:
            if self.calls:
                await asyncio.Event().wait()
            return await super().generate(request_id, **request)

    async def call(generator: TableGenerator) -> tuple[RefinerReply, TopTokens | None]:
        client = RefinerClient(generator, Chat.of(tokenizer), PLAIN, LIMITS, 0.0)
        reply = await client.refine(RefineTask(MESSAGES, encoded(tokenizer, "ab")))
        until_s = asyncio.get_running_loop().time() + 0.05
        return reply, await client.top_tokens(reply, 2, until_s)

    for kind in (Fails, Hangs):
        made = writer(encoded(tokenizer, "ac"))
        reply, top = asyncio.run(call(kind(made.model, made.draw, made.end_ids)))
        assert (reply.outcome, top) == (Outcome.REFINED, None)


def test_they_are_equal_by_what_they_list_also_behind_a_row() -> None:
    top = TopTokens(np.array([[3, 4]], np.int32), np.array([[-0.5, -1.0]], np.float32), 0, 1)
    assert TopTokens.from_row(top.to_row()) == top
    assert top.to_row() == top.to_row()
    assert {type(value) for value in top.to_row().values()} == {int, bytes}
    assert TopTokens(top.token_ids, top.log_probs - 1, 0, 1) != top
    assert TopTokens(top.token_ids, top.log_probs, 0, 0) != top

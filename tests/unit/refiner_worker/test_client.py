"""The refiner's client against a scripted engine: outcomes, deadline, bounded concurrency."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from scripted_engine import Distribution, FakeGenerator, TableGenerator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from refiner_worker.chat import Chat
from refiner_worker.client import (
    Generator,
    Outcome,
    RefineLimits,
    RefinerClient,
    RefinerReply,
    RefineTask,
)
from refiner_worker.prompts import RefineTemplate

TEMPLATE = RefineTemplate("plain", 1, None, "{problem}|{answer}")
MARKED = RefineTemplate("marked", 1, None, "{problem}|[{answer}]", "[", "]")
MESSAGES = [{"role": "user", "content": "sum"}]
LIMITS = RefineLimits(
    max_prompt_tokens=100, max_response_tokens=8, deadline_s=5.0, max_concurrency=2
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and `<eos>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}>"
    return made


Encode = Callable[[str], list[int]]


@pytest.fixture
def encode(tokenizer: PreTrainedTokenizerFast) -> Encode:
    def with_eos(text: str) -> list[int]:
        return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]

    return with_eos


def refine(
    tokenizer: PreTrainedTokenizerFast,
    generator: Generator,
    answer: list[int],
    limits: RefineLimits = LIMITS,
    template: RefineTemplate = TEMPLATE,
    decoding: str = "plain",
) -> RefinerReply:
    async def call() -> RefinerReply:
        client = RefinerClient(generator, Chat.of(tokenizer), template, limits, 0.0, decoding)
        return await client.refine(RefineTask(MESSAGES, answer))

    return asyncio.run(call())


def test_the_refiner_sees_problem_and_answer_without_the_end_token(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    generator = FakeGenerator(lambda prompt: encode("ac"))
    got = refine(tokenizer, generator, encode("ab"))
    assert tokenizer.decode(generator.requests[0]) == "sum|ab>"
    assert got == RefinerReply(
        Outcome.REFINED, tuple(encode("ac")), generated_tokens=3, engine_calls=1
    )


def test_the_same_text_is_verbatim_and_keeps_the_rollouts_own_tokens(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    without_end = encode("ab")[:-1]
    got = refine(tokenizer, FakeGenerator(lambda prompt: encode("ab")), without_end)
    assert got == RefinerReply(
        Outcome.VERBATIM, tuple(without_end), generated_tokens=3, engine_calls=1
    )


def test_an_engine_that_leaves_the_end_token_out_gets_it_added(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    got = refine(tokenizer, FakeGenerator(lambda prompt: encode("ac")[:-1]), encode("ab"))
    assert got.token_ids == tuple(encode("ac"))


def test_an_answer_cut_by_the_limit_is_dropped(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    got = refine(tokenizer, FakeGenerator(lambda prompt: encode("abcdefgh")[:-1]), encode("ab"))
    assert got == RefinerReply(Outcome.TRUNCATED, generated_tokens=8, engine_calls=1)


def test_an_endless_repetition_is_told_apart(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    limits = RefineLimits(100, max_response_tokens=20, deadline_s=5.0, max_concurrency=2)
    got = refine(tokenizer, FakeGenerator(lambda prompt: encode("ab" * 10)[:-1]), [], limits)
    assert (got.outcome, got.generated_tokens) == (Outcome.REPETITIVE, 20)


def test_an_empty_answer_is_told_apart(tokenizer: PreTrainedTokenizerFast, encode: Encode) -> None:
    got = refine(tokenizer, FakeGenerator(lambda prompt: encode(" ")), encode("ab"))
    assert got.outcome is Outcome.EMPTY


def test_echoed_marks_of_the_template_are_taken_off(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    generator = FakeGenerator(lambda prompt: encode("[ac]"))
    got = refine(tokenizer, generator, encode("ab"), template=MARKED)
    assert got.token_ids == tuple(encode("ac"))


def test_what_does_not_fit_the_prompt_budget_is_never_sent(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    generator = FakeGenerator(lambda prompt: encode("ac"))
    tight = RefineLimits(6, 8, 5.0, 2)
    assert refine(tokenizer, generator, encode("ab"), tight).outcome is Outcome.TOO_LONG
    assert generator.requests == []


def test_a_failing_engine_is_an_outcome_not_an_exception(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    def fail(prompt: list[int]) -> list[int]:
        raise RuntimeError("engine is gone")

    assert refine(tokenizer, FakeGenerator(fail), encode("ab")).outcome is Outcome.ENGINE_ERROR


def test_a_hanging_engine_ends_at_the_deadline(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    limits = RefineLimits(100, 8, deadline_s=0.05, max_concurrency=2)
    generator = FakeGenerator(lambda prompt: encode("ac"), gate=asyncio.Event())
    assert refine(tokenizer, generator, encode("ab"), limits).outcome is Outcome.DEADLINE


def test_the_steps_deadline_ends_a_refinement_before_its_own_and_is_told_apart(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    async def call() -> RefinerReply:
        generator = FakeGenerator(lambda prompt: encode("ac"), gate=asyncio.Event())
        client = RefinerClient(generator, Chat.of(tokenizer), TEMPLATE, LIMITS, temperature=0.0)
        until_s = asyncio.get_running_loop().time() + 0.05
        return await client.refine(RefineTask(MESSAGES, encode("ab"), until_s=until_s))

    assert asyncio.run(call()).outcome is Outcome.STEP_DEADLINE


def test_an_answer_in_letters_of_neither_prompt_nor_rollout_is_told_apart(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    generator = FakeGenerator(lambda prompt: encode("жук"))
    got = refine(tokenizer, generator, encode("ab"), RefineLimits(100, 16, 5.0, 2))
    assert got == RefinerReply(Outcome.WRONG_SCRIPT, generated_tokens=7, engine_calls=1)


def test_another_end_token_of_the_refiner_ends_an_answer_too_which_then_ends_as_the_policys_do(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    """The output fills the limit of 8 tokens, and its last one is such an end token."""
    stop = tokenizer.encode("!", add_special_tokens=False)
    output = [*encode("abcdefg")[:-1], *stop]

    async def call() -> RefinerReply:
        engine = FakeGenerator(lambda prompt: output)
        client = RefinerClient(engine, Chat.of(tokenizer), TEMPLATE, LIMITS, 0.0, end_ids=stop)
        return await client.refine(RefineTask(MESSAGES, encode("ab")))

    got = asyncio.run(call())
    assert (got.outcome, got.token_ids) == (Outcome.REFINED, tuple(encode("abcdefg")))


def test_the_refiner_is_told_what_its_template_shows_and_each_request_carries_the_extra(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    engine = always(encode("ac"), tokenizer)
    template = RefineTemplate("told", 1, None, "{problem}|{answer}|{feedback}")

    async def call() -> RefinerReply:
        client = RefinerClient(
            engine, Chat.of(tokenizer), template, LIMITS, 0.0, sampling_extra={"detokenize": False}
        )
        return await client.refine(RefineTask(MESSAGES, encode("ab"), feedback="1 of 2"))

    assert asyncio.run(call()).token_ids == tuple(encode("ac"))
    ((length, parameters),) = engine.calls
    assert length == len("sum|ab|1 of 2>")
    assert parameters["detokenize"] is False


def test_no_more_than_the_allowed_number_are_under_way(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    async def call() -> FakeGenerator:
        gate = asyncio.Event()
        generator = FakeGenerator(lambda prompt: encode("ac"), gate=gate)
        client = RefinerClient(generator, Chat.of(tokenizer), TEMPLATE, LIMITS, temperature=0.0)
        tasks = [
            asyncio.create_task(client.refine(RefineTask(MESSAGES, encode("ab")))) for _ in range(5)
        ]
        while len(generator.requests) < 2:
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
        return generator

    generator = asyncio.run(call())
    assert (generator.in_flight_peak, len(generator.requests)) == (2, 5)


def always(answer: list[int], tokenizer: PreTrainedTokenizerFast) -> TableGenerator:
    """An engine whose greedy output after the refiner's prompt is `answer`."""
    prompt_end = tokenizer.encode(">", add_special_tokens=False)[0]

    def model(context: tuple[int, ...]) -> Distribution:
        written = len(context) - 1 - context.index(prompt_end) if prompt_end in context else 0
        wanted = answer[min(written, len(answer) - 1)]
        return {token: 0.9 if token == wanted else 0.1 / 256 for token in range(257)}

    return TableGenerator(model, draw=lambda distribution: 0, end_ids=answer[-1:])


@pytest.mark.parametrize(
    ("refined", "calls", "generated"),
    [
        ("abcdef", 1, 1),  # verbatim: one prefill
        ("abXdef", 2, 2),  # one token replaced: one prefill before, one after
    ],
)
def test_verify_decoding_refines_as_plain_decoding_does_with_fewer_tokens(
    tokenizer: PreTrainedTokenizerFast,
    encode: Encode,
    refined: str,
    calls: int,
    generated: int,
) -> None:
    answer, expected = encode("abcdef"), encode(refined)
    plain = refine(tokenizer, always(expected, tokenizer), answer)
    verified = refine(tokenizer, always(expected, tokenizer), answer, decoding="verify")
    assert verified.token_ids == plain.token_ids == tuple(expected)
    assert verified.outcome is plain.outcome
    assert (plain.engine_calls, plain.generated_tokens) == (1, 7)
    assert (verified.engine_calls, verified.generated_tokens) == (calls, generated)


def test_the_deadline_holds_for_all_calls_of_one_refinement(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    class HangsAtTheSecondCall(TableGenerator):
        async def generate(self, request_id: str, **request: Any) -> Any:
            if self.calls:
                await asyncio.Event().wait()
            return await super().generate(request_id, **request)

    scripted = always(encode("abXdef"), tokenizer)
    engine = HangsAtTheSecondCall(scripted.model, scripted.draw, scripted.end_ids)
    limits = RefineLimits(100, 8, deadline_s=0.05, max_concurrency=2)
    got = refine(tokenizer, engine, encode("abcdef"), limits, decoding="verify")
    assert (got, len(engine.calls)) == (RefinerReply(Outcome.DEADLINE), 1)


def test_an_unknown_decoding_lists_the_known_ones(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"'fast'.*auto, plain, verify, ngram, copy"):
        RefinerClient(
            FakeGenerator(list), Chat.of(tokenizer), TEMPLATE, LIMITS, 0.0, decoding="fast"
        )

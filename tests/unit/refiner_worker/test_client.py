"""The refiner's client against a scripted engine: outcomes, deadline, bounded concurrency."""

import asyncio
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from refiner_worker.client import Outcome, RefineLimits, Refinement, RefinerClient
from refiner_worker.fake import FakeGenerator
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
    generator: FakeGenerator,
    answer: list[int],
    limits: RefineLimits = LIMITS,
    template: RefineTemplate = TEMPLATE,
) -> Refinement:
    async def call() -> Refinement:
        client = RefinerClient(generator, tokenizer, template, limits, temperature=0.0)
        return await client.refine(MESSAGES, answer)

    return asyncio.run(call())


def test_the_refiner_sees_problem_and_answer_without_the_end_token(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    generator = FakeGenerator(lambda prompt: encode("ac"))
    got = refine(tokenizer, generator, encode("ab"))
    assert tokenizer.decode(generator.requests[0]) == "sum|ab>"
    assert got == Refinement(Outcome.REFINED, tuple(encode("ac")), generated_tokens=3)


def test_the_same_text_is_verbatim_and_keeps_the_rollouts_own_tokens(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    without_end = encode("ab")[:-1]
    got = refine(tokenizer, FakeGenerator(lambda prompt: encode("ab")), without_end)
    assert got == Refinement(Outcome.VERBATIM, tuple(without_end), generated_tokens=3)


def test_an_engine_that_leaves_the_end_token_out_gets_it_added(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    got = refine(tokenizer, FakeGenerator(lambda prompt: encode("ac")[:-1]), encode("ab"))
    assert got.token_ids == tuple(encode("ac"))


def test_an_answer_cut_by_the_limit_is_dropped(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    got = refine(tokenizer, FakeGenerator(lambda prompt: encode("abcdefgh")[:-1]), encode("ab"))
    assert got == Refinement(Outcome.TRUNCATED, generated_tokens=8)


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


def test_no_more_than_the_allowed_number_are_under_way(
    tokenizer: PreTrainedTokenizerFast, encode: Encode
) -> None:
    async def call() -> FakeGenerator:
        gate = asyncio.Event()
        generator = FakeGenerator(lambda prompt: encode("ac"), gate=gate)
        client = RefinerClient(generator, tokenizer, TEMPLATE, LIMITS, temperature=0.0)
        tasks = [asyncio.create_task(client.refine(MESSAGES, encode("ab"))) for _ in range(5)]
        while len(generator.requests) < 2:
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
        return generator

    generator = asyncio.run(call())
    assert (generator.in_flight_peak, len(generator.requests)) == (2, 5)

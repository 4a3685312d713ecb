"""The requests that reach verl's `generate`, and how its answers are read."""

import asyncio
import random
from importlib import import_module
from typing import Any

import pytest
from scripted_engine import Distribution, TableGenerator

from refiner_worker.acceptance import Sampling
from refiner_worker.copy_proposer import CopyProposer
from refiner_worker.decoding import VerifySettings
from refiner_worker.engine import EXCLUDING_BIAS, Decoded, Engine, server_overrides

END = 0
PROMPT = [7, 8]


def copier(answer: list[int], sure: float) -> TableGenerator:
    """Writes `answer` after PROMPT; each wanted token has probability `sure`, 9 others the rest."""
    source = random.Random(3)

    def model(context: tuple[int, ...]) -> Distribution:
        written = max(0, len(context) - len(PROMPT))
        wanted = answer[written] if written < len(answer) else END
        return {token: sure if token == wanted else (1 - sure) / 9 for token in range(10)}

    def draw(distribution: Distribution) -> int:
        return source.choices(list(distribution), list(distribution.values()))[0]

    return TableGenerator(model, draw, end_ids=[END])


def verify(
    generator: TableGenerator, draft: list[int], sampling: Sampling, **extra: Any
) -> Decoded:
    how = VerifySettings(sampling, max_tokens=8, end_ids=frozenset({END}))
    return asyncio.run(Engine(generator, sampling.temperature, extra).verify(PROMPT, draft, how))


def test_a_greedy_verification_asks_for_the_likeliest_token_of_each_position() -> None:
    generator = copier([1, 2, END], sure=0.9)
    got = verify(generator, [1, 2, END], Sampling(0.0), detokenize=False)
    assert got == Decoded((1, 2, END), generated_tokens=1, engine_calls=1, scored_tokens=2)
    neutral = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "detokenize": False}
    assert generator.calls == [(4, {**neutral, "max_tokens": 1, "prompt_logprobs": 1})]


def test_the_scores_are_those_of_the_draft_tokens() -> None:
    """The third draft token is wrong: two are kept, so the second request starts after three."""
    generator = copier([1, 2, 3, 4, END], sure=0.9)
    got = verify(generator, [1, 2, 9, 4, END], Sampling(0.0))
    assert got == Decoded((1, 2, 3, 4, END), generated_tokens=2, engine_calls=2, scored_tokens=5)


def test_a_rejected_token_is_excluded_from_the_next_draw() -> None:
    generator = copier([1, 2, END], sure=1 - 1e-12)
    got = verify(generator, [1, 5, END], Sampling(1.0))
    assert got.token_ids == (1, 2, END)
    first, second = (parameters for _, parameters in generator.calls[:2])
    assert first["prompt_logprobs"] == 0
    assert (second["max_tokens"], second["logit_bias"]) == (1, {5: EXCLUDING_BIAS})
    assert "prompt_logprobs" not in second


def test_sampled_outputs_occur_as_often_as_in_plain_sampling() -> None:
    """P(1, END) = 0.6² = 0.36; over 2000 runs the frequency has a standard error of 0.0107."""
    generator = copier([1, END], sure=0.6)
    runs = [verify(generator, [1, END], Sampling(1.0)).token_ids for _ in range(2000)]
    assert runs.count((1, END)) / 2000 == pytest.approx(0.36, abs=4 * 0.0107)


def test_plain_decoding_is_one_request() -> None:
    generator = copier([1, 2, END], sure=0.9)
    got = asyncio.run(Engine(generator, 0.0).plain(PROMPT, 8))
    assert got == Decoded((1, 2, END), generated_tokens=3)
    assert len(generator.calls) == 1


def test_speculation_is_a_matter_of_the_servers() -> None:
    ngram = server_overrides("ngram", "vllm")["engine_kwargs"]["vllm"]["speculative_config"]
    assert (ngram["method"], ngram["num_speculative_tokens"]) == ("ngram", 8)
    sglang = server_overrides("ngram", "sglang", draft_tokens=4)["engine_kwargs"]["sglang"]
    assert sglang == {"speculative_algorithm": "NGRAM", "speculative_num_draft_tokens": 4}
    assert server_overrides("plain", "vllm") == server_overrides("verify", "sglang") == {}


def test_our_proposer_is_found_by_the_name_given_to_vllm() -> None:
    copy = server_overrides("copy", "vllm")["engine_kwargs"]["vllm"]["speculative_config"]
    module, _, name = copy["model"].rpartition(".")
    assert getattr(import_module(module), name) is CopyProposer
    assert copy["num_speculative_tokens"] == 10


@pytest.mark.parametrize(("decoding", "engine"), [("copy", "sglang"), ("ngram", "trtllm")])
def test_speculation_that_an_engine_does_not_know_is_refused(decoding: str, engine: str) -> None:
    with pytest.raises(ValueError, match=f"refiner.decoding={decoding}.*rollout.name={engine}"):
        server_overrides(decoding, engine)

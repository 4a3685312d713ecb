"""The client of a served reward model, against a real HTTP server that answers as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from reward.dialogue import compute_score, repetition

CONVERSATION = json.dumps([{"role": "user", "content": "Hello?"}])
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Tokenizer:
    """A chat template that can be read off."""

    bos_token = "<s>"

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "<s>" + "|".join(f"{m['role']}:{m['content']}" for m in messages)


def scored(handler: Handler, answer: str = "Hi there", **settings: Any) -> dict[str, Any]:
    """What compute_score says while a server runs `handler` for every request."""

    async def run() -> dict[str, Any]:
        app = web.Application()
        app.router.add_post("/{route:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            return await compute_score(
                "prompt_collection", answer, "", {"conversation": CONVERSATION},
                **{"engine": "vllm", "model": "rm"} | settings,
                reward_router_address=f"127.0.0.1:{port}", reward_model_tokenizer=Tokenizer(),
            )  # fmt: skip
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def answering(body: Any, status: int = 200) -> tuple[Handler, list[tuple[str, Any]]]:
    """A handler that gives `body`, and the list of what it was asked."""
    asked: list[tuple[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, await request.json()))
        return web.json_response(body, status=status)

    return handle, asked


def test_vllm_is_asked_for_the_heads_value_of_the_whole_dialogue() -> None:
    handler, asked = answering({"data": [{"probs": [0.1, 2.5]}]})
    result = scored(handler)
    assert result == {"score": 2.5, "raw_score": 2.5, "degenerate": 0.0, "judge_failed": 0.0}
    text = "user:Hello?|assistant:Hi there"
    assert asked == [("/classify", {"model": "rm", "input": text, "use_activation": False})]


def test_sglang_is_asked_for_an_embedding_whose_last_value_is_the_score() -> None:
    handler, asked = answering({"data": [{"embedding": [-1.25]}]})
    assert scored(handler, engine="sglang")["score"] == -1.25
    assert asked[0][0] == "/v1/embeddings"


def test_normalisation_keeps_the_order_and_the_raw_score() -> None:
    handler, _ = answering({"data": [{"probs": [3.0]}]})
    result = scored(handler, offset=1.0, scale=4.0)
    assert (result["score"], result["raw_score"]) == (0.5, 3.0)


@pytest.mark.parametrize("answer", ["", " \n", "so it is " * 50])
def test_an_empty_or_endlessly_repeating_answer_never_reaches_the_model(answer: str) -> None:
    handler, asked = answering({"data": [{"probs": [9.0]}]})
    result = scored(handler, answer, degenerate_score=-7.0)
    assert (result["score"], result["degenerate"], asked) == (-7.0, 1.0, [])


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 500), ({"data": []}, 200), ({"data": [{"probs": ["high"]}]}, 200), ([], 200)],
)
def test_a_server_without_a_score_is_a_failure_of_the_judge_and_no_score(
    body: Any, status: int
) -> None:
    handler, asked = answering(body, status)
    result = scored(handler, retries=1)
    assert (result["score"], result["judge_failed"]) == (0.0, 1.0)
    assert len(asked) == 2


def test_a_server_that_recovers_is_asked_again() -> None:
    calls = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        status = 503 if calls == 1 else 200
        return web.json_response({"data": [{"probs": [1.0]}]}, status=status)

    assert scored(handle)["score"] == 1.0
    assert calls == 2


def test_a_server_that_hangs_is_given_up_in_time() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    assert scored(handle, timeout_s=0.1, retries=0)["judge_failed"] == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "trtllm"}, "reward_kwargs.engine='trtllm'"),
        ({"engine": "vllm", "scale": 0.0}, "reward_kwargs.scale=0.0"),
        ({"engine": "vllm"}, "no reward model is served"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        asyncio.run(compute_score("x", "y", "", {}, **{"model": "rm"} | settings))


@pytest.mark.parametrize(
    ("text", "share"),
    [("a b c", 0.0), ("a b c d", 0.0), ("a b c d a b c d", 0.2), ("a a a a a a", 2 / 3)],
)
def test_repetition_is_the_share_of_word_groups_that_came_before(text: str, share: float) -> None:
    """a b c d a b c d has five groups of four, of which abcd comes twice; six a's have three."""
    assert repetition(text) == pytest.approx(share)

"""Reasoning of thinking models: whose it is decides whether it is learnt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from scripted_engine import FakeGenerator

from refiner_worker.chat import Chat
from refiner_worker.client import Outcome, RefineLimits, RefinerClient, RefinerReply, RefineTask
from refiner_worker.prompts import RefineTemplate
from refiner_worker.reasoning import prompt_opens_reasoning, response_text

Make = Callable[[str], Any]
TEMPLATE = RefineTemplate("plain", 1, None, "{problem}|{answer}")
BLOCKS = RefineTemplate("blocks", 1, None, "{problem}|{before}|{answer}")
LIMITS = RefineLimits(200, 80, deadline_s=5.0, max_concurrency=2)
MESSAGES = [{"role": "user", "content": "sum"}]
NO_THOUGHTS = {"enable_thinking": False}


@pytest.mark.parametrize(
    ("form", "options", "opens"),
    [
        ("chatml", {}, False),
        ("thinking", {}, False),
        ("thinking", NO_THOUGHTS, False),
        ("opened", {}, True),
    ],
)
def test_prompts_that_end_within_the_reasoning_are_told(
    chat_tokenizer: Make, form: str, options: dict[str, Any], opens: bool
) -> None:
    assert prompt_opens_reasoning(chat_tokenizer(form), options) is opens


@pytest.mark.parametrize(
    ("text", "opened", "response"),
    [
        ("print(1)", False, "print(1)"),
        (" print(1)\n", False, " print(1)\n"),
        ("a <think> b </think> c", False, "a <think> b </think> c"),
        ("<think>\nhm\n</think>\n\nprint(1)\n", False, "print(1)\n"),
        ("\n<think></think>print(1)", False, "print(1)"),
        ("<think>\nhm", False, None),
        ("hm\n</think>\n\nprint('</think>')", True, "print('</think>')"),
        ("hm", True, None),
        ("<think>hm</think>", False, ""),
    ],
)
def test_the_response_is_what_follows_the_reasoning(
    text: str, opened: bool, response: str | None
) -> None:
    assert response_text(text, opened=opened) == response


def refine(
    tokenizer: Any,
    written: str,
    rollout: str,
    options: dict[str, Any] | None = None,
    limits: RefineLimits = LIMITS,
    template: RefineTemplate = TEMPLATE,
) -> tuple[RefinerReply, list[str]]:
    """The refinement, and the prompts that the refiner was given."""
    chat = Chat.of(tokenizer, options)
    engine = FakeGenerator(lambda prompt: chat.response_ids(written))

    async def call() -> RefinerReply:
        client = RefinerClient(engine, chat, template, limits, 0.0)
        return await client.refine(RefineTask(MESSAGES, chat.response_ids(rollout)))

    return asyncio.run(call()), [tokenizer.decode(prompt) for prompt in engine.requests]


def test_the_refiners_reasoning_is_dropped_and_the_policys_own_stays(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer("thinking")
    got, prompts = refine(
        tokenizer,
        "<think>\nThe answer is wrong.\n</think>\n\nac",
        "<think>\na, then b\n</think>\n\nab",
    )
    assert got.outcome is Outcome.REFINED
    assert tokenizer.decode(got.token_ids) == "<think>\na, then b\n</think>\n\nac<|im_end|>"
    assert prompts == ["<|im_start|>user\nsum|ab<|im_end|>\n<|im_start|>assistant\n"]


def test_a_rollout_without_reasoning_gets_none(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer("thinking")
    got, _ = refine(tokenizer, "<think>\nWrong.\n</think>\n\nac", "ab")
    assert tokenizer.decode(got.token_ids) == "ac<|im_end|>"


def test_the_same_response_after_other_reasoning_is_verbatim_with_the_rollouts_tokens(
    chat_tokenizer: Make,
) -> None:
    tokenizer = chat_tokenizer("thinking")
    rollout = "<think>\nhm\n</think>\n\nab"
    got, _ = refine(tokenizer, "<think>\nRight.\n</think>\n\nab", rollout)
    assert got.outcome is Outcome.VERBATIM
    assert got.token_ids == tuple(Chat.of(tokenizer).response_ids(rollout))


def test_prompts_that_begin_the_reasoning_leave_it_to_both(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer("opened")
    got, prompts = refine(tokenizer, "Wrong.\n</think>\n\nac", "hm\n</think>\n\nab")
    assert tokenizer.decode(got.token_ids) == "hm\n</think>\n\nac<|im_end|>"
    assert prompts == ["<|im_start|>user\nsum|ab<|im_end|>\n<|im_start|>assistant\n<think>\n"]


def test_a_rollout_cut_off_while_it_reasons_is_never_sent(chat_tokenizer: Make) -> None:
    for form, rollout in (("thinking", "<think>\nhm"), ("opened", "hm")):
        got, prompts = refine(chat_tokenizer(form), "ac", rollout)
        assert (got.outcome, got.token_ids, prompts) == (Outcome.NO_RESPONSE, (), [])


def test_a_refiner_that_only_reasons_has_written_nothing(chat_tokenizer: Make) -> None:
    for form, written in (("thinking", "<think>\nhm"), ("opened", "hm")):
        got, _ = refine(chat_tokenizer(form), written, "x</think>ab" if form == "opened" else "ab")
        assert (got.outcome, got.token_ids) == (Outcome.EMPTY, ())


def test_reasoning_and_refined_response_must_fit_a_response_together(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer("thinking")
    rollout = "<think>hm</think>ab"  # 4 tokens of reasoning
    for most, outcome in ((4 + 3, Outcome.REFINED), (4 + 2, Outcome.TRUNCATED)):
        limits = RefineLimits(200, most, deadline_s=5.0, max_concurrency=2)
        assert refine(tokenizer, "ac", rollout, limits=limits)[0].outcome is outcome


def test_the_chat_templates_options_reach_the_refiner(chat_tokenizer: Make) -> None:
    _, prompts = refine(chat_tokenizer("thinking"), "ac", "ab", NO_THOUGHTS)
    assert prompts[0].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_block_by_block_too_only_the_response_is_shown(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer("thinking")
    limits = RefineLimits(200, 80, deadline_s=5.0, max_concurrency=2, block_tokens=3)
    got, prompts = refine(
        tokenizer,
        "<think>Wrong.</think>x",
        "<think>hm</think>ab\ncd",
        limits=limits,
        template=BLOCKS,
    )
    assert tokenizer.decode(got.token_ids) == "<think>hm</think>x\nx<|im_end|>"
    shown = [prompt.partition("user\n")[2].partition("<|im_end|>")[0] for prompt in prompts]
    assert shown == ["sum||ab\n", "sum|x\n|cd"]

"""Plain and verify-then-resume decoding of the same refinements on one real engine, as JSON.

Run by path in a process of its own, with the environment of `recipe.cpu`: vLLM starts its engine by
importing the main module again, so the CPU shims must come with it.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
import verl  # noqa: F401  loads the CPU platform and its shims
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.workers.rollout.vllm_rollout.utils import extract_prompt_logprobs

from recipe.cpu.micro_apps import problems
from recipe.cpu.micro_corrupt import corrupt, fenced
from recipe.cpu.micro_tasks import Split, Style
from recipe.cpu.tiny_model_examples import policy_messages, prompt_ids
from refiner_worker.acceptance import Sampling, TokenScore
from refiner_worker.blocks import plan_blocks
from refiner_worker.chat import Chat
from refiner_worker.client import RefineLimits, RefinerClient, RefineTask
from refiner_worker.decoding import Decoding, VerifySettings
from refiner_worker.engine import Decoded, Engine, sampling_extra, server_overrides
from refiner_worker.local_vllm import LocalVllm
from refiner_worker.prompts import RefineTemplate, load_template, render
from refiner_worker.reading import AnswerReader

MAX_TOKENS = 64
BLOCKWISE, BLOCK_TOKENS = 24, 12
SCORED, LISTED = 24, 5
Case = tuple[list[int], list[int]]
"""The refiner's prompt, and the rollout with its end token."""


async def main(checkpoint: str, refinements: int, samples: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    cases = make_cases(tokenizer, refinements)
    async with start(checkpoint, Decoding.COPY) as engine:
        client = Engine(engine, 0.0, sampling_extra("vllm"))
        copied = await asyncio.gather(*(client.plain(prompt, MAX_TOKENS) for prompt, _ in cases))
        copy_passes = engine.forward_passes
        written = list(zip((prompt for prompt, _ in cases), copied, strict=True))[:SCORED]
        scores = await asyncio.gather(
            *(
                client.score((*prompt, *one.token_ids), len(one.token_ids), LISTED)
                for prompt, one in written
            )
        )
    async with start(checkpoint, Decoding.PLAIN) as engine:
        greedy = await decode(engine, 0.0, cases, tokenizer.eos_token_id)
        sampled = await decode(engine, 1.0, cases[1:2] * samples, tokenizer.eos_token_id)
        by_blocks = await refine_by_blocks(engine, tokenizer, BLOCKWISE)
        gaps = [
            await gap_at_divergence(engine, case[0], plain, verified)
            for case, (plain, verified) in zip(cases, greedy, strict=True)
            if plain.token_ids != verified.token_ids
        ]
    outputs = [plain.token_ids for plain, _ in greedy]
    report = {
        "refinements": len(greedy),
        "verbatim": sum(o == tuple(draft) for (_, draft), o in zip(cases, outputs, strict=True)),
        "copy_unequal": sum(c.token_ids != o for c, o in zip(copied, outputs, strict=True)),
        "copy_passes": copy_passes,
        "score_errors": score_errors(checkpoint, written, scores),
        "gaps_nats": gaps,
        "plain_tokens": sum(plain.generated_tokens for plain, _ in greedy),
        "verify_tokens": sum(verified.generated_tokens for _, verified in greedy),
        "most_calls": max(verified.engine_calls for _, verified in greedy),
        "plain_samples": counts([plain for plain, _ in sampled]),
        "verify_samples": counts([verified for _, verified in sampled]),
        "by_blocks": by_blocks,
    }
    print(json.dumps(report))


def start(checkpoint: str, decoding: Decoding) -> LocalVllm:
    """An engine set up for a way of decoding."""
    return LocalVllm(
        checkpoint,
        extract_prompt_logprobs,
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=64,
        kv_cache_memory_bytes=64 << 20,
        distributed_executor_backend="uni",
        **server_overrides(decoding, "vllm").get("engine_kwargs", {}).get("vllm", {}),
    )


def make_cases(tokenizer: Any, count: int) -> list[Case]:
    """Right programs and programs with a slip, in turn, for problems of the test split."""
    rng = random.Random(0)
    template = load_template("micro-v1")
    cases: list[Case] = []
    for index, problem in enumerate(islice(problems(Split.TEST, 0), count)):
        style = Style.draw(rng)
        right = fenced(problem.task.program(style))
        answer = corrupt(problem.task, style, rng) if index % 2 else right
        messages = render(template, policy_messages(problem.task, rng), answer)
        draft = tokenizer.encode(answer, add_special_tokens=False)
        cases.append((prompt_ids(tokenizer, messages), [*draft, tokenizer.eos_token_id]))
    return cases


async def decode(
    engine: LocalVllm, temperature: float, cases: Sequence[Case], end_id: int
) -> list[tuple[Decoded, Decoded]]:
    """Each case decoded plainly and by verify-then-resume."""
    how = VerifySettings(Sampling(temperature), MAX_TOKENS, frozenset({end_id}))
    client = Engine(engine, temperature, sampling_extra("vllm"))
    plain = await asyncio.gather(*(client.plain(prompt, MAX_TOKENS) for prompt, _ in cases))
    verified = await asyncio.gather(*(client.verify(prompt, draft, how) for prompt, draft in cases))
    return list(zip(plain, verified, strict=True))


async def gap_at_divergence(
    engine: LocalVllm, prompt: list[int], plain: Decoded, verified: Decoded
) -> float:
    """How much likelier (nats) the best token is than the second where two outputs part."""
    pairs = zip(plain.token_ids, verified.token_ids, strict=False)
    shared = next(i for i, (a, b) in enumerate(pairs) if a != b)
    output = await engine.generate(
        "gap",
        prompt_ids=[*prompt, *plain.token_ids[: shared + 1]],
        sampling_params={"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 2},
    )
    best, second = output.extra_fields["prompt_logprobs"][-2]
    return best - second


def score_errors(
    checkpoint: str,
    written: Sequence[tuple[list[int], Decoded]],
    scores: Sequence[Sequence[TokenScore]],
) -> list[float]:
    """How far (nats) each scored state's listed tokens are from the model's likeliest."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    errors = []
    for (prompt, one), states in zip(written, scores, strict=True):
        ids = torch.tensor([[*prompt, *one.token_ids]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        log_probs = torch.log_softmax(logits, dim=-1)
        for expected, score in zip(log_probs, states, strict=True):
            told = torch.tensor(score.log_probs)
            theirs = expected[list(score.token_ids)]
            best = expected.topk(LISTED).values
            errors.append(max((told - theirs).abs().max().item(), (told - best).abs().max().item()))
    return errors


async def refine_by_blocks(engine: LocalVllm, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Answers refined in blocks: how each ended, and its calls against the blocks of the plan."""
    limits = RefineLimits(240, MAX_TOKENS, 60.0, 64, block_tokens=BLOCK_TOKENS)
    template = RefineTemplate("blocks", 1, None, "{problem}\n{before}fix:\n{answer}")
    client = RefinerClient(engine, Chat.of(tokenizer), template, limits, 0.0)
    rng = random.Random(1)
    tasks = []
    for problem in islice(problems(Split.TEST, 1), count):
        answer = tokenizer.encode(fenced(problem.task.program(Style.draw(rng))))
        tasks.append(RefineTask(policy_messages(problem.task, rng), answer))
    done = await asyncio.gather(*(client.refine(task) for task in tasks))
    ends_line = AnswerReader(Chat.of(tokenizer), template).ends_line
    return [
        {
            "outcome": str(one.outcome),
            "calls": one.engine_calls,
            "blocks": len(plan_blocks(task.answer_ids, BLOCK_TOKENS, ends_line)),
            "tokens": len(one.token_ids),
        }
        for task, one in zip(tasks, done, strict=True)
    ]


def counts(outputs: Sequence[Decoded]) -> dict[str, int]:
    return Counter(" ".join(map(str, output.token_ids)) for output in outputs)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

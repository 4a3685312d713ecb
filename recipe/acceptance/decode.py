"""Decodes the same refinements on three vLLM engines of one model: plain, ngram, copy.

    python -m recipe.acceptance.decode --model FOLDER --device cuda --out FILE --in-flight 8 64 512

Run as a process of its own, which gives all memory back at its end. The engines start side by side
and take turns, so that what else the machine does slows all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import verl  # noqa: F401  on a machine without a GPU it loads the platform and the shims
from transformers import AutoTokenizer
from verl.workers.rollout.vllm_rollout.utils import extract_prompt_logprobs

from recipe.acceptance.decoding import (
    COPY,
    NGRAM,
    PLAIN,
    Decoded,
    DecodingSeen,
    Slept,
    parting,
)
from recipe.acceptance.machine import GIB, MIB, gpu_memory_bytes
from recipe.acceptance.refinements import MAX_ANSWER_TOKENS, MAX_PROMPT_TOKENS, prompts
from refiner_worker.engine import Engine, sampling_extra, server_overrides
from refiner_worker.local_vllm import LocalVllm

METHODS = (PLAIN, NGRAM, COPY)
ENGINE_ARGS: dict[str, dict[str, Any]] = {
    "cuda": {
        "dtype": "bfloat16",
        "enforce_eager": False,
        "enable_sleep_mode": True,
        # Three engines share the GPU: each is told its cache, and only looks whether this is free.
        "gpu_memory_utilization": 0.2,
        "kv_cache_memory_bytes": 8 * GIB,
    },
    "cpu": {
        "dtype": "float32",
        "enforce_eager": True,
        "kv_cache_memory_bytes": 64 * MIB,
        "distributed_executor_backend": "uni",
        "block_size": 16,
    },
}
ASLEEP_WHILE = 32
"""Refinements that are decoded before and after the engine has slept."""

Outputs = list[tuple[int, ...]]


@dataclass(frozen=True)
class Run:
    """One method, all refinements once."""

    wall_s: float
    outputs: Outputs
    passes: int
    drafted: int
    accepted: int


class Contender:
    """An engine, set up for one decoding method."""

    def __init__(self, method: str, model: str, device: str, max_num_seqs: int) -> None:
        speculation = server_overrides(method, "vllm").get("engine_kwargs", {}).get("vllm", {})
        self.method = method
        self.engine = LocalVllm(
            model,
            extract_prompt_logprobs,
            max_model_len=MAX_PROMPT_TOKENS + MAX_ANSWER_TOKENS + 1,
            max_num_seqs=max_num_seqs,
            **ENGINE_ARGS[device],
            **speculation,
        )
        self._client = Engine(self.engine, 0.0, sampling_extra("vllm"))

    async def run(self, asked: Sequence[list[int]], in_flight: int) -> Run:
        """Decode all, with an empty prefix cache and without what was seen before."""
        await self.engine.forget()
        slots = asyncio.Semaphore(in_flight)
        passes, (drafted, accepted) = self.engine.forward_passes, self.engine.drafts
        started = time.perf_counter()
        outputs = list(await asyncio.gather(*(self._decoded(prompt, slots) for prompt in asked)))
        wall_s = time.perf_counter() - started
        now = self.engine.drafts
        spent = self.engine.forward_passes - passes
        return Run(wall_s, outputs, spent, now[0] - drafted, now[1] - accepted)

    async def _decoded(self, prompt: list[int], slots: asyncio.Semaphore) -> tuple[int, ...]:
        async with slots:
            return (await self._client.plain(prompt, MAX_ANSWER_TOKENS)).token_ids


async def measure(options: argparse.Namespace) -> DecodingSeen:
    """Every method at every load, then the sleep of an engine that speculates."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    args = ENGINE_ARGS[options.device]
    async with AsyncExitStack() as stack:
        contenders = await asyncio.gather(
            *(
                asyncio.to_thread(
                    Contender, method, str(options.model), options.device, max(options.in_flight)
                )
                for method in METHODS
            )
        )
        for contender in contenders:
            await stack.enter_async_context(contender.engine)
        rows: list[Decoded] = []
        for load in options.in_flight:
            asked = prompts(tokenizer, max(options.refinements, 2 * load))
            rows += await _compared(contenders, asked, load, options.turns)
        slept = None
        if args.get("enable_sleep_mode"):
            for other in contenders[:-1]:
                await other.engine.sleep()
            slept = await _slept(contenders[-1], prompts(tokenizer, ASLEEP_WHILE))
    return DecodingSeen(args["dtype"], not args["enforce_eager"], tuple(rows), slept)


async def _compared(
    contenders: Sequence[Contender], asked: Sequence[list[int]], in_flight: int, turns: int
) -> list[Decoded]:
    """All methods in turns, after one to warm up."""
    runs: dict[str, list[Run]] = {one.method: [] for one in contenders}
    for _ in range(turns + 1):
        for contender in contenders:
            runs[contender.method].append(await contender.run(asked, in_flight))
    plain, expected = contenders[0].engine, runs[PLAIN][-1].outputs
    return [
        Decoded(
            decoding=method,
            in_flight=in_flight,
            refinements=len(asked),
            tokens=sum(map(len, last.outputs)),
            wall_s=statistics.median(run.wall_s for run in timed),
            passes=last.passes,
            drafted=last.drafted,
            accepted=last.accepted,
            gaps_nats=tuple(await _gaps(plain, asked, expected, last.outputs)),
        )
        for method, (_, *timed) in runs.items()
        for last in [timed[-1]]
    ]


async def _gaps(
    plain: LocalVllm, asked: Sequence[list[int]], expected: Outputs, outputs: Outputs
) -> list[float]:
    return [
        await _gap(plain, prompt, output, parting(output, other))
        for prompt, output, other in zip(asked, expected, outputs, strict=True)
        if output != other
    ]


async def _gap(plain: LocalVllm, prompt: list[int], output: tuple[int, ...], at: int) -> float:
    """How much likelier (nats) the best token is than the second at a place of an output."""
    reply = await plain.generate(
        f"gap-{time.monotonic_ns()}",
        prompt_ids=[*prompt, *output[: at + 1]],
        sampling_params={"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 2},
    )
    best, second = reply.extra_fields["prompt_logprobs"][-2]
    return float(best - second)


async def _slept(contender: Contender, asked: Sequence[list[int]]) -> Slept:
    """The others sleep, so that what is in use is this engine's but for their processes."""
    before = await contender.run(asked, len(asked))
    awake, started = gpu_memory_bytes(), time.perf_counter()
    await contender.engine.sleep()
    sleep_s, asleep = time.perf_counter() - started, gpu_memory_bytes()
    started = time.perf_counter()
    await contender.engine.wake_up()
    wake_s, woken = time.perf_counter() - started, gpu_memory_bytes()
    after = await contender.run(asked, len(asked))
    changed = sum(a != b for a, b in zip(before.outputs, after.outputs, strict=True))
    return Slept(awake, asleep, woken, sleep_s, wake_s, len(asked), changed)


def main() -> None:
    """Measure what the options ask for and write it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", choices=list(ENGINE_ARGS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, nargs="+", required=True)
    parser.add_argument("--refinements", type=int, default=64, help="at least so many a load")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    seen = asyncio.run(measure(options))
    options.out.write_text(json.dumps(asdict(seen), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

# ruff: noqa: E402  (the environment must be set before verl and vLLM are imported)
"""Methods to decode a refinement against plain decoding: calls, tokens per forward pass, times.

    python scripts/bench/refine.py [--steps 4] [--in-flight 8] [--turns 5] [--json FILE]

Everything comes from one run on real vLLM engines on the CPU with the tiny model; the contenders
take turns, so that a busy machine slows all of them. "mix" is what the quickstart's training steps
send to the refiner: of GROUP samples of the policy for each of PROBLEMS problems those that do not
pass all tests, one step after the other. The other rows have as many refinements, or as many as
--pool has, in as many batches. Their rollouts are right programs, programs with one slip, with the
task misread, and programs for other tasks; they are sorted by what the refiner (greedy) made of
them: a verbatim copy, one edit, many edits (half of it copied, or more), a rewrite. At most
--in-flight are under way at a time, since a step's rollouts end and are judged one after the other;
docs/refiner.md says how many are in a training. "mix at once" has no such limit: a step's all come
together.

plain           one request each
verify          verify-then-resume, on the same engine
ngram           vLLM's n-gram speculation
copy            speculation by refiner_worker.copy_proposer
first token     the prompts alone: the lower bound of all of them

No method makes texts of tokens, as in training, and before each batch the prefix cache and the
proposer's memory are emptied: what is shared is shared among the refinements of one step.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

from recipe.cpu.launch import restart_with_environment

restart_with_environment()

import psutil  # type: ignore[import-untyped]
import verl  # noqa: F401  loads the CPU platform and its shims
from rapidfuzz.distance import Levenshtein
from transformers import AutoTokenizer
from verl.workers.rollout.vllm_rollout.utils import extract_prompt_logprobs

from recipe.cpu.micro_apps import MicroProblem, problems
from recipe.cpu.micro_corrupt import corrupt, fenced, misread
from recipe.cpu.micro_tasks import Split, Style
from recipe.cpu.tiny_model_evaluate import as_judge_problem
from recipe.cpu.tiny_model_examples import policy_messages, prompt_ids
from refiner_worker.acceptance import Sampling
from refiner_worker.decoding import Decoding, VerifySettings
from refiner_worker.diff import token_diff
from refiner_worker.engine import (
    Decoded,
    Engine,
    sampling_extra,
    server_overrides,
)
from refiner_worker.local_vllm import LocalVllm
from refiner_worker.prompts import load_template, render
from reward.extract import Extract, extract
from reward.judge import Judge
from reward.verdict import Verdict

CHECKPOINT = REPO_ROOT / "recipe" / "cpu" / "checkpoint"
TEMPLATE = load_template("micro-v1")
MAX_PROMPT_TOKENS, MAX_ANSWER_TOKENS = 176, 64
PROBLEMS, GROUP = 8, 8
"""Problems of a training step, and rollouts of each: the quickstart's."""
KINDS = ("verbatim", "one edit", "many edits", "rewritten")
ENGINE_ARGS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": MAX_PROMPT_TOKENS + MAX_ANSWER_TOKENS,
    "max_num_seqs": 128,
    "max_num_batched_tokens": 4096,
    "kv_cache_memory_bytes": 64 << 20,
    "distributed_executor_backend": "uni",
    "block_size": 16,
}
QUIET = sampling_extra("vllm")
IN_THE_ENGINE = (
    Decoding.NGRAM,
    Decoding.COPY,
)


@dataclass(frozen=True)
class Case:
    """One refinement to decode: the refiner's prompt, and the rollout with its end token."""

    prompt_ids: list[int]
    draft_ids: list[int]


Batch = list[Case]
"""The refinements of one step."""


@dataclass(frozen=True)
class Row:
    """What is decoded, and how many are under way at a time; None for all of a batch."""

    batches: list[Batch]
    in_flight: int | None


@dataclass(frozen=True)
class Figures:
    """Means over the refinements of one row; times of all its batches, median of turns."""

    calls: float
    passes: float
    tokens_per_pass: float
    wall_s: float
    cpu_s: float
    equal: float


@dataclass(frozen=True)
class Run:
    """One way, all batches; `cpu_s` is of this process and all engines, of which one works."""

    wall_s: float
    cpu_s: float
    outputs: list[Decoded]
    passes: int


Decode = Callable[[Case], Awaitable[Decoded]]


@dataclass(frozen=True)
class Contender:
    """A way to decode, and the engine that counts its forward passes."""

    decode: Decode
    engine: LocalVllm


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=4, help="training steps in the mix")
    parser.add_argument("--in-flight", type=int, default=8, help="refinements at a time")
    parser.add_argument("--pool", type=int, default=800, help="candidates the rows are drawn from")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    async with AsyncExitStack() as stack:
        engines = {
            decoding: await stack.enter_async_context(_engine(decoding))
            for decoding in (Decoding.PLAIN, *IN_THE_ENGINE)
        }
        contenders = _contenders(engines, tokenizer)
        mix = await _mix(Engine(engines[Decoding.PLAIN], 1.0), tokenizer, options.steps)
        sizes = [len(batch) for batch in mix]
        kinds = await _kinds(contenders["plain"].decode, tokenizer, options.pool, sizes)
        rows = {
            **{kind: Row(batches, options.in_flight) for kind, batches in kinds.items()},
            "mix": Row(mix, options.in_flight),
            "mix at once": Row(mix, None),
        }
        results = {
            name: await _compare(contenders, row, options.turns) for name, row in rows.items()
        }
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, figures in results.items():
        _print_row(name, rows[name], figures)
    if options.json:
        plain = {
            row: {n: asdict(f) for n, f in figures.items()} for row, figures in results.items()
        }
        options.json.write_text(json.dumps(plain, indent=1))


def _engine(decoding: Decoding) -> LocalVllm:
    speculation = server_overrides(decoding, "vllm").get("engine_kwargs", {}).get("vllm", {})
    return LocalVllm(str(CHECKPOINT), extract_prompt_logprobs, **ENGINE_ARGS, **speculation)


def _contenders(engines: dict[Decoding, LocalVllm], tokenizer: Any) -> dict[str, Contender]:
    how = VerifySettings(
        Sampling(0.0), max_tokens=MAX_ANSWER_TOKENS, end_ids=frozenset({tokenizer.eos_token_id})
    )

    def plain(decoding: Decoding, max_tokens: int = MAX_ANSWER_TOKENS) -> Contender:
        client = Engine(engines[decoding], 0.0, QUIET)
        return Contender(lambda case: client.plain(case.prompt_ids, max_tokens), engines[decoding])

    engine = engines[Decoding.PLAIN]
    client = Engine(engine, 0.0, QUIET)
    return {
        "plain": plain(Decoding.PLAIN),
        "verify": Contender(
            lambda case: client.verify(case.prompt_ids, case.draft_ids, how), engine
        ),
        **{str(decoding): plain(decoding) for decoding in IN_THE_ENGINE},
        "first token": plain(Decoding.PLAIN, max_tokens=1),
    }


async def _kinds(
    plain: Decode, tokenizer: Any, pool: int, sizes: Sequence[int]
) -> dict[str, list[Batch]]:
    """Cases by what plain decoding makes of them, in batches of these sizes."""
    chosen = list(islice(problems(Split.TEST, seed=0), pool))
    rng = random.Random(0)
    found: dict[str, list[Case]] = {kind: [] for kind in KINDS}
    cases = [
        _case(tokenizer, policy_messages(p.task, rng), _rollout(i, p, chosen, rng))
        for i, p in enumerate(chosen)
    ]
    outputs = await asyncio.gather(*(plain(case) for case in cases))
    for case, output in zip(cases, outputs, strict=True):
        found[_kind(case.draft_ids, output.token_ids)].append(case)
    return {kind: _batches(cases, sizes) for kind, cases in found.items()}


def _batches(cases: Sequence[Case], sizes: Sequence[int]) -> list[Batch]:
    """As many of these sizes as there are cases for; the last may be shorter."""
    left = iter(cases)
    batches = [list(islice(left, size)) for size in sizes]
    return [batch for batch in batches if batch]


def _rollout(
    index: int, problem: MicroProblem, others: Sequence[MicroProblem], rng: random.Random
) -> str:
    style = Style.draw(rng)
    if index % 4 == 0:
        return fenced(problem.task.program(style))
    if index % 4 == 1:
        return corrupt(problem.task, style, rng)
    if index % 4 == 2:
        return corrupt(misread(misread(problem.task, rng), rng), style, rng)
    return fenced(rng.choice(others).task.program(style))


def _case(tokenizer: Any, messages: list[dict[str, str]], answer: str) -> Case:
    draft = tokenizer.encode(answer, add_special_tokens=False)
    prompt = prompt_ids(tokenizer, render(TEMPLATE, messages, answer))
    return Case(prompt[:MAX_PROMPT_TOKENS], [*draft, tokenizer.eos_token_id])


def _kind(draft: Sequence[int], output: Sequence[int]) -> str:
    diff = token_diff(draft, output)
    if diff.edit_distance == 0:
        return "verbatim"
    if diff.copied_ratio < 0.5:
        return "rewritten"
    blocks = groupby(Levenshtein.opcodes(draft, output), key=lambda block: block.tag == "equal")
    return "one edit" if sum(not equal for equal, _ in blocks) == 1 else "many edits"


async def _mix(policy: Engine, tokenizer: Any, steps: int) -> list[Batch]:
    """The policy's own samples, without those that pass: they are never refined."""
    rng = random.Random(1)
    drawn = problems(Split.TRAIN, seed=1)
    with Judge() as judge:
        return [
            await _wrong_samples(policy, tokenizer, judge, list(islice(drawn, PROBLEMS)), rng)
            for _ in range(steps)
        ]


async def _wrong_samples(
    policy: Engine,
    tokenizer: Any,
    judge: Judge,
    chosen: Sequence[MicroProblem],
    rng: random.Random,
) -> Batch:
    """One step's: GROUP samples for each problem, whose statement they share."""
    asked = [(p, messages) for p in chosen for messages in [policy_messages(p.task, rng)] * GROUP]
    prompts = [prompt_ids(tokenizer, messages) for _, messages in asked]
    samples = await asyncio.gather(*(policy.plain(p, MAX_ANSWER_TOKENS) for p in prompts))
    answers = [tokenizer.decode(s.token_ids, skip_special_tokens=True) for s in samples]
    pending = [
        judge.submit(as_judge_problem(problem), extract(answer, Extract(judge.config.extract)))
        for (problem, _), answer in zip(asked, answers, strict=True)
    ]
    return [
        _case(tokenizer, messages, answer)
        for (_, messages), answer, future in zip(asked, answers, pending, strict=True)
        if future.result().verdict is not Verdict.ACCEPTED
    ]


async def _compare(contenders: dict[str, Contender], row: Row, turns: int) -> dict[str, Figures]:
    """Every contender on every batch, once to warm up, then in turns."""
    if not row.batches:
        return {}
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(turns + 1):
        for name, contender in contenders.items():
            runs[name].append(await _run(contender, row))
    expected = [decoded.token_ids for decoded in runs["plain"][-1].outputs]
    return {name: _figures(kept[1:], expected) for name, kept in runs.items()}


async def _run(contender: Contender, row: Row) -> Run:
    """One batch after the other."""
    passes, cpu_s, wall_s = contender.engine.forward_passes, 0.0, 0.0
    outputs: list[Decoded] = []
    for batch in row.batches:
        slots = asyncio.Semaphore(row.in_flight or len(batch))
        await contender.engine.forget()
        before, started = _cpu_s(), time.perf_counter()
        outputs += await asyncio.gather(*(_decoded(contender, case, slots) for case in batch))
        wall_s += time.perf_counter() - started
        cpu_s += _cpu_s() - before
    return Run(wall_s, cpu_s, outputs, contender.engine.forward_passes - passes)


async def _decoded(contender: Contender, case: Case, slots: asyncio.Semaphore) -> Decoded:
    async with slots:
        return await contender.decode(case)


def _cpu_s() -> float:
    """CPU seconds that this process and its engines have used; a busy machine adds few."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _figures(runs: list[Run], expected: list[tuple[int, ...]]) -> Figures:
    outputs, passes = runs[-1].outputs, runs[-1].passes
    count = len(outputs)
    return Figures(
        calls=sum(output.engine_calls for output in outputs) / count,
        passes=passes / count,
        tokens_per_pass=sum(len(output.token_ids) for output in outputs) / passes,
        wall_s=statistics.median(run.wall_s for run in runs),
        cpu_s=statistics.median(run.cpu_s for run in runs),
        equal=sum(o.token_ids == e for o, e in zip(outputs, expected, strict=True)) / count,
    )


def _print_row(name: str, row: Row, figures: dict[str, Figures]) -> None:
    sizes = ", ".join(str(len(batch)) for batch in row.batches)
    print(f"\n{name}: {sizes} refinements, {row.in_flight or 'all'} at a time")
    print(f"{'':18}{'calls':>8}{'passes':>8}{'tok/pass':>9}{'wall s':>8}{'cpu s':>8}", end="")
    print(f"{'passes ÷':>10}{'wall ÷':>8}{'cpu ÷':>8}{'equal':>8}")
    for contender, got in figures.items():
        base = figures["plain"]
        print(
            f"{contender:18}{got.calls:8.2f}{got.passes:8.2f}{got.tokens_per_pass:9.2f}"
            f"{got.wall_s:8.3f}{got.cpu_s:8.3f}{base.passes / got.passes:10.2f}"
            f"{base.wall_s / got.wall_s:8.2f}{base.cpu_s / got.cpu_s:8.2f}{got.equal:8.1%}"
        )


if __name__ == "__main__":
    asyncio.run(main())

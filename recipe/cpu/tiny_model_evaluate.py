"""How well the tiny model writes and refines: the figures that its README states.

Every sample is written by the model as policy, refined by the same model under the refiner's
template, and both are judged in the sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recipe.cpu.micro_apps import MicroProblem, problems
from recipe.cpu.micro_tasks import Split
from recipe.cpu.tiny_model_examples import TEMPLATE, prompt_ids
from recipe.data.apps_records import bare_prompt
from refiner_worker.prompts import load_template, parse_refinement, render
from reward.extract import Extract, extract
from reward.judge import Judge
from reward.problem import Problem, parse_problem
from reward.verdict import JudgeResult, Verdict

MAX_ANSWER_TOKENS = 128
EVALUATION_SEED = 1_000_003
"""Of the problems that models are measured on; no training draws from it."""
_BATCH_SIZE = 128


@dataclass(frozen=True)
class Figures:
    """Fractions, of all samples unless said otherwise."""

    samples: int
    passed: float
    verbatim_of_right: float  # refinements equal to a sample that passed
    fixed_of_wrong: float  # refinements that pass, of samples that did not
    improved: float  # refinement scores higher: the improvement ratio
    harmed: float  # refinement scores lower


@dataclass(frozen=True)
class Judged:
    """Answers with their verdicts."""

    answers: list[str]
    results: list[JudgeResult]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    split: Split,
    *,
    count: int,
    write_temperature: float,
    refine_temperature: float,
    seed: int,
) -> Figures:
    """Figures over `count` problems of a split, one sample each. Temperature 0 is greedy."""
    torch.manual_seed(seed)
    chosen = list(islice(problems(split, seed), count))
    prompts = [_messages(problem) for problem in chosen]
    template = load_template(TEMPLATE)
    with Judge() as judge:
        first = _judged(judge, chosen, _answers(model, tokenizer, prompts, write_temperature))
        refine_prompts = [
            render(template, messages, answer)
            for messages, answer in zip(prompts, first.answers, strict=True)
        ]
        texts = _answers(model, tokenizer, refine_prompts, refine_temperature)
        refined = [parse_refinement(template, text) for text in texts]
        return summarise(first, _judged(judge, chosen, refined))


def summarise(first: Judged, refined: Judged) -> Figures:
    """The fractions of paired responses; a fraction of nothing is nan."""
    right = [result.verdict is Verdict.ACCEPTED for result in first.results]
    same = [a == b for a, b in zip(first.answers, refined.answers, strict=True)]
    fixed = [result.verdict is Verdict.ACCEPTED for result in refined.results]
    gains = [b.score - a.score for a, b in zip(first.results, refined.results, strict=True)]
    return Figures(
        samples=len(right),
        passed=_share(right),
        verbatim_of_right=_share([s for s, r in zip(same, right, strict=True) if r]),
        fixed_of_wrong=_share([m for m, r in zip(fixed, right, strict=True) if not r]),
        improved=_share([gain > 0 for gain in gains]),
        harmed=_share([gain < 0 for gain in gains]),
    )


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[dict[str, str]]],
    temperature: float,
) -> list[str]:
    """One response per prompt, without special tokens."""
    rows = [prompt_ids(tokenizer, messages) for messages in prompts]
    padded = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
    sampling: dict[str, float] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
    with torch.inference_mode():
        output = model.generate(**padded, max_new_tokens=MAX_ANSWER_TOKENS, **sampling)
    answers = output[:, padded["input_ids"].shape[1] :]
    return tokenizer.batch_decode(answers, skip_special_tokens=True)


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[dict[str, str]]],
    temperature: float,
) -> list[str]:
    answers: list[str] = []
    for start in range(0, len(prompts), _BATCH_SIZE):
        answers += generate(model, tokenizer, prompts[start : start + _BATCH_SIZE], temperature)
    return answers


def _judged(judge: Judge, chosen: list[MicroProblem], answers: list[str]) -> Judged:
    pending = [
        judge.submit(as_judge_problem(problem), extract(answer, Extract(judge.config.extract)))
        for problem, answer in zip(chosen, answers, strict=True)
    ]
    return Judged(answers, [future.result() for future in pending])


def as_judge_problem(problem: MicroProblem) -> Problem:
    """The judge's view of a generated problem."""
    return parse_problem({"problem_id": problem.task.key, "input_output": problem.input_output})


def _messages(problem: MicroProblem) -> list[dict[str, str]]:
    return [{"role": "user", "content": bare_prompt(problem.question, problem.starter_code)}]


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else float("nan")

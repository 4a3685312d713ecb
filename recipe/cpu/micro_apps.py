"""Micro-APPS: programming problems that a million parameters can learn, in the layout of APPS.

Written as `ROOT/SPLIT/NNNN/{question.txt, input_output.json, solutions.json, metadata.json}`, with
`starter_code.py` if the problem is call-based. Train and test never share the parameters of a
task (`Task.key`), whatever its form and wording; `metadata.json` carries the key in its `url`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recipe.cpu.micro_areas import AREA_WEIGHTS, AREAS
from recipe.cpu.micro_tasks import Form, Split, Style, Task
from recipe.data.apps import PrepareOptions, PromptStyle, prepare

TESTS_PER_PROBLEM = 5
URL_PREFIX = "micro-apps:"
_REFERENCE_STYLES = (
    Style(names=0, loop=False),
    Style(names=0, loop=True),
    Style(names=2, loop=False),
)
_DIFFICULTIES = ("introductory", "interview", "competition")


@dataclass(frozen=True)
class MicroProblem:
    """One problem: its task, its wording and its tests (`inputs[i]` leads to `outputs[i]`)."""

    task: Task
    question: str
    inputs: list[Any]
    outputs: list[Any]

    @property
    def starter_code(self) -> str:
        return self.task.starter_code()

    @property
    def solutions(self) -> list[str]:
        return list(dict.fromkeys(self.task.program(style) for style in _REFERENCE_STYLES))

    @property
    def input_output(self) -> dict[str, Any]:
        suite: dict[str, Any] = {"inputs": self.inputs, "outputs": self.outputs}
        return {"fn_name": "solve", **suite} if self.task.form is Form.FUNCTION else suite

    @property
    def difficulty(self) -> str:
        """By the number of clauses that have something to say."""
        return _DIFFICULTIES[sum(bool(c.operation.phrases[0]) for c in self.task.clauses) - 1]


def draw_task(rng: random.Random, split: Split) -> Task:
    """A random task of the split."""
    while True:
        area = AREAS[rng.choices(list(AREA_WEIGHTS), list(AREA_WEIGHTS.values()))[0]]
        task = Task(area, area.draw_clauses(rng), rng.choice(list(area.intros)))
        if task.split is split:
            return task


def make_problem(task: Task, rng: random.Random) -> MicroProblem:
    """The task in words, with tests whose expected outputs are not all the same if possible."""
    cases = [_case(task, rng) for _ in range(TESTS_PER_PROBLEM)]
    for _ in range(20):
        if len({json.dumps(expected) for _, expected in cases}) > 1:
            break
        cases[-1] = _case(task, rng)
    inputs, outputs = zip(*cases, strict=True)
    return MicroProblem(task, task.statement(rng), list(inputs), list(outputs))


def problems(split: Split, seed: int) -> Iterator[MicroProblem]:
    """Problems without end, no statement twice; the same seed gives the same sequence."""
    rng = random.Random(f"micro-apps/{split.value}/{seed}")
    seen: set[str] = set()
    while True:
        problem = make_problem(draw_task(rng, split), rng)
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem


def write_problem(problem: MicroProblem, folder: Path) -> None:
    """One problem folder in the layout of APPS."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"difficulty": problem.difficulty, "url": URL_PREFIX + problem.task.key}
    (folder / "question.txt").write_text(problem.question)
    (folder / "input_output.json").write_text(json.dumps(problem.input_output))
    (folder / "solutions.json").write_text(json.dumps(problem.solutions))
    (folder / "metadata.json").write_text(json.dumps(metadata))
    starter = folder / "starter_code.py"
    if problem.starter_code:
        starter.write_text(problem.starter_code)
    else:
        starter.unlink(missing_ok=True)


def write_micro_apps(root: Path, count: int, split: Split, seed: int) -> Path:
    """`count` problem folders under `root/SPLIT`; returns that folder. Idempotent."""
    folder = root / split.value
    chosen = islice(problems(split, seed), count)
    bar = tqdm(chosen, total=count, desc=f"micro-APPS {split.value}", unit="problem", disable=None)
    for index, problem in enumerate(bar):
        write_problem(problem, folder / f"{index:04d}")
    return folder


def prepare_micro_apps(
    out: Path, train_problems: int = 1024, test_problems: int = 64, seed: int = 0
) -> tuple[Path, Path]:
    """Problem folders under `out/micro_apps` and verl's `train.parquet` and `test.parquet` in
    `out`.

    Everything the quickstart trains on; the prompts are bare, as the tiny model expects them.
    """
    source = out / "micro_apps"
    write_micro_apps(source, train_problems, Split.TRAIN, seed)
    write_micro_apps(source, test_problems, Split.TEST, seed)
    options = PrepareOptions(data_source="micro_apps", prompt_style=PromptStyle.BARE)
    prepare(str(source), out, splits=("train", "test"), options=options)
    return out / "train.parquet", out / "test.parquet"


def _case(task: Task, rng: random.Random) -> tuple[Any, Any]:
    """One test: input and expected output, as APPS stores them."""
    arguments = task.area.draw_arguments(task.clauses, rng)
    expected = task.area.evaluate(task.clauses, arguments)
    if task.form is Form.FUNCTION:
        return list(arguments), expected
    return task.area.as_text(task.form, arguments), f"{expected}\n"

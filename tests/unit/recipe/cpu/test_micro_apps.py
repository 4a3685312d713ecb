"""Micro-APPS: solvable as stated, in APPS's layout, the same every time, test apart from train."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

import pytest

from recipe.cpu.micro_apps import (
    URL_PREFIX,
    MicroProblem,
    draw_task,
    make_problem,
    prepare_micro_apps,
    problems,
    write_micro_apps,
)
from recipe.cpu.micro_areas import AREAS
from recipe.cpu.micro_corrupt import corrupt, fenced
from recipe.cpu.micro_lists import LISTS
from recipe.cpu.micro_pairs import PAIRS
from recipe.cpu.micro_strings import STRINGS
from recipe.cpu.micro_tasks import Area, Clause, Form, Split, Style, Task
from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import Problem, parse_problem
from reward.verdict import JudgeResult, Verdict

STYLES = [Style(names, loop) for names in range(3) for loop in (False, True)]


def task_of(area: Area, form: Form, *clauses: tuple[str, int | str | None]) -> Task:
    """A task from the kinds of its clauses."""
    chosen = []
    for slot, (kind, constant) in zip(area.slots, clauses, strict=True):
        operation = next(o for o in slot if o.kind == kind)
        chosen.append(Clause(operation, constant))
    return Task(area, tuple(chosen), form)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(JudgeConfig()) as judge:
        yield judge


@pytest.mark.parametrize(
    ("task", "argument", "expected"),
    [
        # Above 12: 15 and 20; times 3: 45 and 60; sum 105.
        (task_of(LISTS, Form.ONE_LINE, ("above", 12), ("times", 3), ("sum", None)),
         ([15, 3, 20],), 105),
        # -7 is odd; absolute values 7 and 3; 7 - 3 = 4.
        (task_of(LISTS, Form.FUNCTION, ("odd", None), ("absolute", None), ("spread", None)),
         ([-7, 4, 3],), 4),
        # (1 + 2 + 5) // 3 = 2.
        (task_of(LISTS, Form.COUNT_LINE, ("all", None), ("same", None), ("mean", None)),
         ([1, 2, 5],), 2),
        # "banana" without a is "bnn": n occurs twice.
        (task_of(STRINGS, Form.ONE_LINE, ("without", "a"), ("letter", "n")), ("banana",), 2),
        # The first three of "silent" are "sil", sorted "ils".
        (task_of(STRINGS, Form.FUNCTION, ("head", 3), ("sorted", None)), ("silent",), "ils"),
        # 7 * 5 = 35, 35 % 8 = 3.
        (task_of(PAIRS, Form.ONE_LINE, ("multiply", None), ("reduce", 8)), (7, 5), 3),
        # |3 - 10| = 7, not above 7.
        (task_of(PAIRS, Form.COUNT_LINE, ("distance", None), ("exceeds", 7)), (3, 10), "NO"),
    ],
)  # fmt: skip
def test_a_task_means_what_its_clauses_say(
    task: Task, argument: tuple[object, ...], expected: object
) -> None:
    assert task.area.evaluate(task.clauses, argument) == expected


def test_a_statement_says_each_clause_in_order() -> None:
    task = task_of(LISTS, Form.FUNCTION, ("even", None), ("plus", 4), ("max", None))
    statements = {task.statement(random.Random(seed)) for seed in range(200)}
    assert (
        "Given a list of integers. Keep even ones. Add 4 to each. Return the largest." in statements
    )
    assert len(statements) == 2**4


def test_a_program_is_written_in_the_asked_style() -> None:
    task = task_of(LISTS, Form.COUNT_LINE, ("below", 9), ("square", None), ("sum", None))
    assert task.program(Style(names=0, loop=False)) == (
        "n=int(input())\na=list(map(int,input().split()))\nb=[x*x for x in a if x<9]\nprint(sum(b))"
    )
    assert task.program(Style(names=1, loop=True)) == (
        "k=int(input())\n"
        "v=list(map(int,input().split()))\n"
        "w=[]\n"
        "for e in v:\n"
        "    if e<9:\n"
        "        w.append(e*e)\n"
        "print(sum(w))"
    )


def test_a_call_based_program_begins_with_its_starter_code() -> None:
    for area in AREAS.values():
        task = Task(area, area.draw_clauses(random.Random(0)), Form.FUNCTION)
        assert all(task.program(style).startswith(task.starter_code()) for style in STYLES)


@pytest.mark.parametrize("area", AREAS.values(), ids=AREAS)
def test_every_operation_is_solved_by_its_program(area: Area, judge: Judge) -> None:
    """Programs are judged against outputs that come from the operations' meaning."""
    rng = random.Random(area.name)
    pending = []
    for index, slot in enumerate(area.slots):
        for operation in slot:
            clause = Clause(operation, rng.choice(operation.constants))
            form = rng.choice(list(area.intros))
            task = Task(area, area.draw_clauses(rng), form).with_clause(index, clause)
            styles = rng.sample(STYLES, 2)
            pending += [(task, style, submit(judge, task, style)) for style in styles]
    for task, style, future in pending:
        assert future.result().verdict is Verdict.ACCEPTED, (task.key, task.form, style)


def submit(judge: Judge, task: Task, style: Style) -> Future[JudgeResult]:
    problem = make_problem(task, random.Random(task.key))
    return judge.submit(judge_problem(problem), task.program(style))


def judge_problem(problem: MicroProblem) -> Problem:
    return parse_problem({"problem_id": "p", "input_output": problem.input_output})


@pytest.mark.parametrize("split", Split)
def test_every_reference_solution_passes(split: Split, judge: Judge) -> None:
    pending = [
        (problem, judge.submit(judge_problem(problem), solution))
        for problem in islice(problems(split, seed=3), 40)
        for solution in problem.solutions
    ]
    for problem, future in pending:
        assert future.result().verdict is Verdict.ACCEPTED, problem.task.key


def test_train_and_test_share_no_parameters_and_no_statement() -> None:
    train = list(islice(problems(Split.TRAIN, seed=0), 3000))
    test = list(islice(problems(Split.TEST, seed=0), 500))
    assert not {p.task.key for p in train} & {p.task.key for p in test}
    assert not {p.question for p in train} & {p.question for p in test}


def test_the_split_depends_on_the_parameters_alone() -> None:
    rng = random.Random(5)
    for _ in range(100):
        task = draw_task(rng, Split.TEST)
        twins = [Task(task.area, task.clauses, form) for form in task.area.intros]
        assert {twin.split for twin in twins} == {Split.TEST}


def test_there_are_hundreds_of_families() -> None:
    assert len({p.task.family for p in islice(problems(Split.TRAIN, seed=0), 1500)}) > 200


def test_no_constant_answer_passes() -> None:
    """Expected outputs differ within almost every problem (some tasks have one answer)."""
    suites = [p.outputs for p in islice(problems(Split.TRAIN, seed=1), 300)]
    assert sum(len({str(output) for output in outputs}) == 1 for outputs in suites) <= 6


def test_the_same_seed_gives_the_same_problems_and_another_seed_others() -> None:
    first, again, other = ([*islice(problems(Split.TRAIN, seed), 20)] for seed in (7, 7, 8))
    assert first == again
    assert [p.question for p in first] != [p.question for p in other]


def test_folders_have_the_layout_of_apps(tmp_path: Path) -> None:
    folder = write_micro_apps(tmp_path, 30, Split.TEST, seed=0)
    assert [path.name for path in sorted(folder.iterdir())][:2] == ["0000", "0001"]
    always = {"question.txt", "input_output.json", "solutions.json", "metadata.json"}
    for problem in folder.iterdir():
        suite = json.loads((problem / "input_output.json").read_text())
        call_based = "fn_name" in suite
        names = {path.name for path in problem.iterdir()}
        assert names == always | ({"starter_code.py"} if call_based else set())
        metadata = json.loads((problem / "metadata.json").read_text())
        assert set(metadata) == {"difficulty", "url"}
        assert metadata["url"].startswith(URL_PREFIX)
        assert len(suite["inputs"]) == len(suite["outputs"]) == 5


def test_preparing_twice_changes_nothing(tmp_path: Path) -> None:
    def snapshot() -> dict[str, tuple[bytes, int]]:
        files = tmp_path.glob("*.*")
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    prepare_micro_apps(tmp_path, train_problems=20, test_problems=5)
    before = snapshot()
    prepare_micro_apps(tmp_path, train_problems=20, test_problems=5)
    assert snapshot() == before
    assert {"train.parquet", "test.parquet"} <= before.keys()


def test_a_corrupted_answer_is_never_the_right_one_and_rarely_passes(judge: Judge) -> None:
    rng = random.Random(11)
    pending = []
    for _ in range(60):
        task, style = draw_task(rng, Split.TRAIN), Style.draw(rng)
        answer = corrupt(task, style, rng)
        assert answer != fenced(task.program(style))
        program = answer.removeprefix("```python\n").removesuffix("\n```")
        pending.append(judge.submit(judge_problem(make_problem(task, rng)), program))
    accepted = sum(future.result().verdict is Verdict.ACCEPTED for future in pending)
    assert accepted < 0.2 * len(pending)

"""Real benchmarks: their own solutions score 1.0 under every protocol, wrong ones 0."""

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

import pytest

from recipe.evaluation.files import Log
from recipe.evaluation.judging import Judged, judge_missing, judged_in
from recipe.evaluation.kinds import Benchmark, EvalProblem, Family
from recipe.evaluation.problems import ProblemSet, load_problems
from recipe.evaluation.protocols import PROTOCOLS
from recipe.evaluation.results import score
from reward.judge import Judge

FILES = {
    Benchmark.HUMANEVAL: ("humaneval/HumanEval.jsonl.gz", 164),
    Benchmark.MBPP: ("mbpp/mbpp_sanitized.jsonl", 427),
}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def load(benchmark: Benchmark, shared_data: Path) -> ProblemSet:
    name, count = FILES[benchmark]
    problems = load_problems(benchmark, shared_data / name)
    assert (len(problems.problems), problems.quarantined) == (count, ())
    return problems


def completion(problem: EvalProblem, protocol: str) -> str:
    """What a model that writes the benchmark's own solution would answer."""
    if protocol == "chat" or problem.family == Family.MBPP:
        return problem.reference
    body = problem.reference.removeprefix(problem.prompt)
    return f"\n{body}" if protocol == "bigcode" else body


def verdicts_on(
    problems: ProblemSet,
    protocol: str,
    answer: Callable[[EvalProblem, str], str],
    judge: Judge,
    folder: Path,
) -> list[Judged]:
    samples = [
        {"problem_id": p.problem_id, "sample": 0, "completion": answer(p, protocol)}
        for p in problems.problems
    ]
    log = Log(folder / "v.jsonl")
    failed = judge_missing(
        problems.problems, PROTOCOLS[protocol], samples, log, judge, problems.benchmark
    )
    assert failed == 0
    return judged_in(log.records(), log.path)


@pytest.mark.parametrize(
    ("benchmark", "protocol"),
    [
        (Benchmark.HUMANEVAL, "bigcode"),
        (Benchmark.HUMANEVAL, "bigcode_unstripped"),
        (Benchmark.HUMANEVAL, "evalplus_base"),
        (Benchmark.HUMANEVAL, "chat"),
        (Benchmark.MBPP, "bigcode"),  # and bigcode_unstripped, which asks MBPP the same way
        (Benchmark.MBPP, "evalplus_base"),
        (Benchmark.MBPP, "chat"),
    ],
)
def test_canonical_solutions_score_one(
    benchmark: Benchmark, protocol: str, judge: Judge, shared_data: Path, tmp_path: Path
) -> None:
    problems = load(benchmark, shared_data)
    verdicts = verdicts_on(problems, protocol, completion, judge, tmp_path)
    assert [verdict.problem_id for verdict in verdicts if not verdict.right] == []
    found = score(benchmark, protocol, verdicts, (1,))
    assert found.pass_at[1].value == 1.0
    assert (found.format.value, found.skill) == (1.0, 1.0)


def nothing(problem: EvalProblem, protocol: str) -> str:
    return f"def {problem.entry_point}(*arguments):\n    return None\n"


def wrapped(problem: EvalProblem, protocol: str) -> str:
    """The right answer in the wrong form: the solution inside a function of the same name."""
    name = problem.entry_point
    return (
        f"def {name}(*arguments):\n{indent(problem.reference, '    ')}\n"
        f"    return ('wrong', {name}(*arguments))\n"
    )


@pytest.mark.parametrize("answer", [nothing, wrapped])
@pytest.mark.parametrize("benchmark", FILES)
def test_wrong_variants_score_nothing_for_skill_and_all_for_format(
    benchmark: Benchmark,
    answer: Callable[[EvalProblem, str], str],
    judge: Judge,
    shared_data: Path,
    tmp_path: Path,
) -> None:
    problems = load(benchmark, shared_data)
    verdicts = verdicts_on(problems, "chat", answer, judge, tmp_path)
    assert [verdict.problem_id for verdict in verdicts if verdict.right] == []
    found = score(benchmark, "chat", verdicts, (1,))
    assert (found.pass_at[1].value, found.format.value) == (0.0, 1.0)

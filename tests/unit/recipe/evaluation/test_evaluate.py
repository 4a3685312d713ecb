"""From answers to scores through the real judge, and the command line's handling of bad input."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.evaluate import Plan, evaluate
from recipe.evaluation.folder import Folder, evalplus_id
from recipe.evaluation.generate import Sampling
from recipe.evaluation.kinds import Benchmark, MbppSplit
from recipe.evaluation.main import main
from recipe.evaluation.problems import ProblemSet, load_problems
from recipe.evaluation.protocols import Prompt
from reward.config import JudgeConfig

Samples = dict[str, dict[str, Any]]
WriteLines = Callable[..., Path]
DRAWN = Sampling(samples=3, temperature=0.8)


@pytest.fixture
def sets(samples: Samples, write_lines: WriteLines, tmp_path: Path) -> tuple[ProblemSet, ...]:
    apps = tmp_path / "test.parquet"
    pq.write_table(pa.Table.from_pylist([samples["apps"]]), apps)
    return (
        load_problems(Benchmark.HUMANEVAL, write_lines("h.jsonl", samples["humaneval"])),
        load_problems(Benchmark.MBPP, write_lines("m.jsonl", samples["mbpp"])),
        load_problems(Benchmark.APPS, apps),
    )


def plan(sets: tuple[ProblemSet, ...], *protocols: str, sampling: Sampling = DRAWN) -> Plan:
    return Plan("m", sampling, sets, protocols, (1, 3), None, JudgeConfig(workers=1))


RIGHT_WRONG_NONE = {
    "HumanEval/7": [
        "\n    return a + b\nprint(add(1, 2))",  # right once cut
        "\n    return a - b",  # a program, and wrong
        "\n",  # no body
    ],
    "9": ["def double(x):\n    return x + x\n", "def double(x):\n    return x\n", "Why not?"],
    "0003": [
        "```python\nprint(int(input()) * 2)\n```",
        "```python\nprint(4)\n```",  # passes one test of two
        "print(int(input()) * 2)",  # undeclared
    ],
}


def test_answers_are_generated_judged_and_scored(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    folder = Folder(tmp_path / "out")
    scores = evaluate(plan(sets, "bigcode"), lambda: table_engine(RIGHT_WRONG_NONE), folder)
    assert [(s.benchmark, s.protocol) for s in scores] == [
        ("humaneval", "bigcode"),
        ("mbpp", "bigcode"),
        ("apps", "apps"),
    ]
    for found in scores:
        assert found.pass_at[1].value == pytest.approx(1 / 3)
        assert found.pass_at[3].value == 1.0
        assert found.format.value == pytest.approx(2 / 3)
        assert found.skill == pytest.approx(1 / 2)
    (interview, _) = scores[2].tiers
    assert interview.tests.value == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert interview.verdicts == {"accepted": 1, "wrong_answer": 1, "compile_error": 1}
    results = json.loads((folder.path / "results.json").read_text())
    assert results[0]["pass_at"]["1"]["value"] == pytest.approx(1 / 3)


def test_a_finished_evaluation_asks_no_engine_and_judges_nothing_again(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    folder = Folder(tmp_path / "out")
    first = evaluate(plan(sets, "bigcode"), lambda: table_engine(RIGHT_WRONG_NONE), folder)
    verdicts = (folder.path / "verdicts" / "mbpp.bigcode.jsonl").read_bytes()

    def no_engine() -> Any:
        raise AssertionError("nothing was missing")

    assert evaluate(plan(sets, "bigcode"), no_engine, folder) == first
    assert (folder.path / "verdicts" / "mbpp.bigcode.jsonl").read_bytes() == verdicts


def test_samples_and_protocols_may_be_added_to_a_folder_and_nothing_else_changed(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    folder = Folder(tmp_path / "out")
    engines: list[Any] = []

    def engine() -> Any:
        engines.append(table_engine(RIGHT_WRONG_NONE))
        return engines[-1]

    one = Sampling(samples=1, temperature=0.8)
    evaluate(plan(sets[:1], "bigcode", sampling=one), engine, folder)
    evaluate(plan(sets, "bigcode"), engine, folder)
    assert engines[1].asked[:2] == [("HumanEval/7", 1), ("HumanEval/7", 2)]
    other = Sampling(samples=3, temperature=0.2)
    with pytest.raises(EvaluationError, match=r"made with temperature=0.8, not 0.2"):
        evaluate(plan(sets, "bigcode", sampling=other), engine, folder)


def test_a_mistaken_call_that_generated_nothing_binds_nobody(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    folder = Folder(tmp_path / "out")

    def no_model() -> Any:
        raise EvaluationError("no such model")

    other = Sampling(samples=3, temperature=0.2)
    with pytest.raises(EvaluationError, match="no such model"):
        evaluate(plan(sets, "bigcode", sampling=other), no_model, folder)
    assert evaluate(plan(sets, "bigcode"), lambda: table_engine(RIGHT_WRONG_NONE), folder)


def test_a_benchmark_that_changed_is_not_mixed_into_a_folder(
    sets: tuple[ProblemSet, ...],
    samples: Samples,
    write_lines: WriteLines,
    tmp_path: Path,
    table_engine: Any,
) -> None:
    folder = Folder(tmp_path / "out")
    evaluate(plan(sets[:1], "bigcode"), lambda: table_engine(RIGHT_WRONG_NONE), folder)
    record = samples["humaneval"] | {"canonical_solution": "    return b + a\n"}
    changed = load_problems(Benchmark.HUMANEVAL, write_lines("h.jsonl", record))
    with pytest.raises(EvaluationError, match="humaneval sha256="):
        evaluate(plan((changed,), "bigcode"), lambda: table_engine({}), folder)


def test_what_was_asked_and_of_which_weights_is_written_down(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    folder = Folder(tmp_path / "out")
    two = replace(plan(sets[:1], "bigcode"), limit=1)
    evaluate(two, lambda: table_engine(RIGHT_WRONG_NONE), folder)
    content = folder.record().content
    assert content["weights_sha256"] == folder.record().weights == "weights of m"
    assert (content["engine"], content["limit"], content["temperature"]) == ("table", 1, 0.8)
    assert datetime.fromisoformat(content["scored_at"]).tzinfo is not None
    assert folder.record().size("humaneval") == 1
    assert folder.record().problems() == {"humaneval": sets[0].content_sha256}


def test_samples_of_other_weights_or_another_engine_are_not_mixed_into_a_folder(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    folder = Folder(tmp_path / "out")
    one = Sampling(samples=1, temperature=0.8)
    evaluate(plan(sets, "bigcode", sampling=one), lambda: table_engine(RIGHT_WRONG_NONE), folder)

    class Other(table_engine):
        name = "endpoint"

    for engine, message in (
        (table_engine(RIGHT_WRONG_NONE, weights="trained on"), "weights_sha256='weights of m', no"),
        (Other(RIGHT_WRONG_NONE), "engine='table', not 'endpoint'"),
    ):
        with pytest.raises(EvaluationError, match=message):
            evaluate(plan(sets, "bigcode"), [engine].pop, folder)
        assert engine.asked == []


def mbpp_of(samples: Samples, write_lines: WriteLines, *numbers: object) -> ProblemSet:
    records = [samples["mbpp"] | {"task_id": number} for number in numbers]
    return load_problems(Benchmark.MBPP, write_lines("split.jsonl", *records))


@pytest.mark.parametrize(
    ("split", "taken"),
    [
        (MbppSplit.ALL, ["10", "11", "MbppEval/510", "511", "600", "601", "974", "x"]),
        (MbppSplit.PROMPT, ["10"]),
        (MbppSplit.TEST, ["11", "MbppEval/510"]),
        (MbppSplit.VALIDATION, ["511", "600"]),
        (MbppSplit.TRAIN, ["601", "974"]),
    ],
)
def test_a_split_of_mbpp_is_taken_by_number_and_the_limit_counts_within_it(
    split: MbppSplit, taken: list[str], samples: Samples, write_lines: WriteLines
) -> None:
    numbers = (10, 11, "MbppEval/510", 511, 600, 601, 974, "x")
    asked = replace(
        plan((mbpp_of(samples, write_lines, *numbers),), "chat"), mbpp_split=split, limit=None
    )
    ((_, _, found),) = asked.parts()
    assert [problem.problem_id for problem in found] == taken
    assert asked.asked().sizes == {"mbpp": len(taken)}
    ((_, _, first),) = replace(asked, limit=1).parts()
    assert [problem.problem_id for problem in first] == taken[:1]


def test_the_test_split_has_500_problems_and_the_splits_make_up_the_whole() -> None:
    sizes = {split: len(split.numbers) for split in MbppSplit if split.numbers}
    assert (sizes[MbppSplit.TEST], sum(sizes.values())) == (500, 974)


def test_a_file_without_a_problem_of_the_split_is_refused(
    samples: Samples, write_lines: WriteLines
) -> None:
    asked = plan((mbpp_of(samples, write_lines, 9),), "chat")
    with pytest.raises(EvaluationError, match=r"--mbpp-split test: .* has no problem with such"):
        list(replace(asked, mbpp_split=MbppSplit.TEST).parts())


def test_verdicts_of_other_settings_of_the_judge_are_not_mixed(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    folder = Folder(tmp_path / "out")
    asked = plan(sets[:1], "bigcode")
    evaluate(asked, lambda: table_engine(RIGHT_WRONG_NONE), folder)
    slower = replace(asked, judge=JudgeConfig(workers=1, timeout_s=20.0))
    with pytest.raises(EvaluationError, match=r"--set timeout_s=20\.0: .* judged with timeout_s=4"):
        evaluate(slower, lambda: table_engine({}), folder)
    evaluate(replace(asked, judge=JudgeConfig(workers=2)), lambda: table_engine({}), folder)
    shutil.rmtree(folder.path / "verdicts")
    evaluate(slower, lambda: table_engine({}), folder)
    assert folder.record().conditions()["judge's timeout_s"] == 20.0


def test_programs_are_written_as_evalplus_reads_them(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    folder = Folder(tmp_path / "out")
    evaluate(plan(sets[:2], "chat"), lambda: table_engine(RIGHT_WRONG_NONE), folder)
    lines = (folder.path / "programs" / "mbpp.chat.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "task_id": "Mbpp/9",
        "solution": "def double(x):\n    return x + x\n",
    }
    assert evalplus_id("HumanEval/7") == "HumanEval/7"
    assert evalplus_id("MbppEval/2") == "Mbpp/2"


@pytest.fixture
def command(samples: Samples, write_lines: WriteLines, tmp_path: Path) -> list[str]:
    path = write_lines("ok.jsonl", samples["humaneval"])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return [
        *("evaluate", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "o")),
        *("--benchmark", f"humaneval={path}"),
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--benchmark", "mbpp=/absent.jsonl"], "--benchmark mbpp=/absent.jsonl: no such file"),
        (["--benchmark", "mbpp"], "--benchmark 'mbpp': write NAME=PATH"),
        (["--benchmark", "codeforces=x"], "--benchmark 'codeforces' is unknown; use one of"),
        (["--protocol", "zero-shot"], "--protocol 'zero-shot' is unknown; use one of bigcode"),
        (["--protocol", "apps"], "--protocol apps: does not apply to humaneval; use bigcode"),
        (["--temperature", "-1"], "--temperature -1.0: use 0"),
        (["--pass-at", "10"], "--pass-at 10: use 1 to --samples, which is 1"),
        (["--limit", "0"], "--limit 0: use 1 or more problems"),
        (["--set", "timeout=3"], "judge setting timeout=3 is unknown"),
        (["--set", "packages=numpy,absent_one"], "--set packages=numpy,absent_one: absent_one is"),
        (
            ["--endpoint", "http://x", "--retry-for", "0"],
            "--retry-for 0.0: use a number of seconds above 0",
        ),
        (["--model", "/absent"], "--model /absent: no folder with a config.json"),
        (["--endpoint", "http://x", "--concurrency", "0"], "--concurrency 0: use 1 or more"),
        (["--endpoint", "localhost"], "--endpoint localhost: not a URL"),
        (["--endpoint", "http://x", "--engine", "a=1"], "--engine a=1: means vLLM in this"),
    ],
)
def test_bad_input_is_one_message_with_key_value_and_fix(
    more: list[str], message: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *more]) == 2
    error = capsys.readouterr().err
    assert f"error: {message}" in error
    assert "Traceback" not in error


def test_compare_names_folders_without_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["base"], "write NAME=DIR"),
        ([f"base={tmp_path}", "--pass-at", "0"], "--pass-at 0: use 1 or more"),
        ([f"base={tmp_path}/absent"], "no such folder; give an evaluation's --out"),
        ([f"base={tmp_path}"], "no verdicts there; make them with"),
        ([f"a={tmp_path}", f"a={tmp_path}"], "the name a is given twice"),
    ):
        assert main(["compare", *words]) == 2
        assert message in capsys.readouterr().err


def test_compare_reads_folders_and_writes_the_tables(
    sets: tuple[ProblemSet, ...],
    tmp_path: Path,
    table_engine: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "out"
    evaluate(plan(sets, "bigcode"), lambda: table_engine(RIGHT_WRONG_NONE), Folder(folder))
    out = tmp_path / "table.md"
    assert main(["compare", f"base={folder}", f"tuned={folder}", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert out.read_text() == text
    assert "## bigcode" in text and "## apps" in text
    assert "### tuned: apps by difficulty" in text


def test_a_model_without_a_chat_template_is_refused_before_anything_is_generated(
    sets: tuple[ProblemSet, ...], tmp_path: Path, table_engine: Any
) -> None:
    class Bare(table_engine):
        def render(self, prompt: Prompt) -> tuple[str, bool]:
            if prompt.messages:
                raise EvaluationError("no chat template")
            return prompt.text, True

    engine = Bare(RIGHT_WRONG_NONE)
    with pytest.raises(EvaluationError, match="no chat template"):
        evaluate(plan(sets[:2], "bigcode", "chat"), lambda: engine, Folder(tmp_path / "out"))
    assert engine.asked == []


PLUS_TEST = """
import numpy as np

def near(found, wanted):
    if found != wanted:
        np.testing.assert_allclose(found, wanted, atol=1e-6)

def check(candidate):
    inputs = [[n, 0.1] for n in range(1000)]
    wanted = [n + 0.1 for n in range(1000)]
    for given, expected in zip(inputs, wanted):
        near(candidate(*given), expected)
"""


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("    return a + b\n", True),
        ("    return a + b + 1e-9\n", True),  # within the test's own tolerance
        ("    return a + b if a < 999 else 0.0\n", False),  # only the last of 1,000 inputs tells
    ],
)
def test_a_plus_sets_test_program_is_judged_to_its_last_input(
    body: str,
    right: bool,
    samples: Samples,
    write_lines: WriteLines,
    tmp_path: Path,
    table_engine: Any,
) -> None:
    record = samples["humaneval"] | {"test": PLUS_TEST}
    problems = load_problems(Benchmark.HUMANEVAL_PLUS, write_lines("plus.jsonl", record))
    engine = table_engine({"HumanEval/7": [body]})
    asked = Plan(
        "m", Sampling(), (problems,), ("bigcode_unstripped",), (1,), None, JudgeConfig(workers=1)
    )
    (found,) = evaluate(asked, lambda: engine, Folder(tmp_path / "out"))
    assert found.pass_at[1].value == float(right)
    assert found.format.value == 1.0

"""Every form of record becomes the same kind of problem; what cannot is set aside or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.kinds import Benchmark, Family, Message
from recipe.evaluation.problems import load_problems
from recipe.evaluation.records import called_first
from reward.sandbox.wire import Kind

Samples = dict[str, dict[str, Any]]
WriteLines = Callable[..., Path]


@pytest.mark.parametrize("name", ["h.jsonl", "h.jsonl.gz"])
def test_humaneval_keeps_prompt_and_makes_the_solution_whole(
    name: str, samples: Samples, write_lines: WriteLines
) -> None:
    record = samples["humaneval"]
    (problem,) = load_problems(Benchmark.HUMANEVAL, write_lines(name, record)).problems
    assert (problem.problem_id, problem.entry_point) == ("HumanEval/7", "add")
    assert problem.prompt == record["prompt"]
    assert problem.reference == record["prompt"] + record["canonical_solution"]
    assert problem.judged.kind == Kind.CHECK
    assert problem.judged.prefix == problem.judged.preface == ""


def test_mbpp_is_asked_by_a_docstring_with_one_test(
    samples: Samples, write_lines: WriteLines
) -> None:
    (problem,) = load_problems(Benchmark.MBPP, write_lines("m.jsonl", samples["mbpp"])).problems
    assert problem.prompt == (
        '"""\nWrite a function to double a number.\nassert double(2) == 4\n"""\n'
    )
    assert (problem.problem_id, problem.entry_point) == ("9", "double")
    assert "\r" not in problem.reference
    test = json.loads(problem.judged.tests[0].given)["test"]
    assert test == "\nassert double(2) == 4\nassert double(-1) == -2"


def test_mbpp_converted_to_humanevals_form_is_asked_the_same_way(write_lines: WriteLines) -> None:
    record = {
        "task_id": "MbppEval/9",
        "prompt": "def helper(x):\n    '''\n    Write a function to double a number.\n    '''\n",
        "entry_point": "helper",
        "canonical_solution": "    return x\ndef double(x):\n    return helper(x) * 2\n",
        "test": "def check(candidate):\n    assert double(2) == 4\n    assert double(-1) == -2\n",
    }
    (problem,) = load_problems(Benchmark.MBPP, write_lines("m.jsonl", record)).problems
    assert problem.prompt == (
        '"""\nWrite a function to double a number.\nassert double(2) == 4\n"""\n'
    )
    assert problem.entry_point == "double"


def test_mbpp_plus_is_judged_by_its_test_program_and_the_sanitised_edition_by_its_imports(
    samples: Samples, write_lines: WriteLines
) -> None:
    base = {key: samples["mbpp"][key] for key in ("task_id", "code", "test_list")}
    base["prompt"] = "Write a function to double a number."
    plus = base | {
        "test": "for x in range(9):\n    assert double(x) == 2 * x\n",
        "test_imports": [],
    }
    (problem,) = load_problems(Benchmark.MBPP_PLUS, write_lines("p.jsonl", plus)).problems
    assert json.loads(problem.judged.tests[0].given)["test"] == plus["test"]
    assert problem.family == Family.MBPP
    sanitised = base | {"test_imports": ["import math"]}
    path = write_lines("s.jsonl", sanitised)
    (problem,) = load_problems(Benchmark.MBPP, path).problems
    assert json.loads(problem.judged.tests[0].given)["test"].startswith("import math\n")


def test_the_hash_of_the_content_depends_on_what_is_asked_and_tested_and_on_nothing_else(
    samples: Samples, write_lines: WriteLines, tmp_path: Path
) -> None:
    record = samples["humaneval"]
    tested = record | {"test": record["test"].replace("== 4", "== 5")}
    asked = record | {"prompt": record["prompt"].replace("Add", "Sum")}
    solved = record | {"canonical_solution": "    return b + a\n"}
    packed = write_lines("h.jsonl.gz", record)
    digest = load_problems(Benchmark.HUMANEVAL, packed).content_sha256
    for changed, same in ((record, True), (solved, True), (tested, False), (asked, False)):
        found = load_problems(Benchmark.HUMANEVAL, write_lines("h.jsonl", changed))
        assert (found.content_sha256 == digest) is same


def test_a_list_of_records_in_one_json_file_is_read(samples: Samples, tmp_path: Path) -> None:
    path = tmp_path / "sanitized-mbpp.json"
    path.write_text(json.dumps([samples["mbpp"]]))
    assert len(load_problems(Benchmark.MBPP, path).problems) == 1


def test_a_prepared_apps_row_keeps_its_messages(samples: Samples, tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    pq.write_table(pa.Table.from_pylist([samples["apps"]]), path)
    (problem,) = load_problems(Benchmark.APPS, path).problems
    assert problem.messages == (Message("user", "Print twice the number."),)
    assert (problem.problem_id, problem.difficulty) == ("0003", "interview")
    assert (problem.judged.kind, len(problem.judged.tests)) == (Kind.STDIO, 2)
    assert problem.reference == "print(2 * int(input()))\n"


@pytest.mark.parametrize(
    ("benchmark", "form", "change", "reason"),
    [
        ("humaneval", "humaneval", {"test": " "}, "the test program is empty"),
        ("humaneval", "humaneval", {"prompt": ""}, "`prompt` is empty"),
        ("humaneval", "humaneval", {"entry_point": "a b"}, "is not a name"),
        ("humaneval", "humaneval", {"prompt": 3}, "`prompt` is a int, not text"),
        ("humaneval", "mbpp", {}, "`prompt` is empty"),
        ("mbpp", "mbpp", {"test_list": []}, "`test_list` is not a list of assertions"),
        ("mbpp", "mbpp", {"code": "x = 1"}, "calls no function that `code` defines"),
        ("mbpp", "mbpp", {"text": ""}, "neither `prompt` nor `text`"),
        ("apps", "apps", {"reward_model": None}, "run python -m recipe.data.prepare_apps"),
        ("apps", "apps", {"reward_model": {"ground_truth": "{"}}, "input_output is not JSON"),
    ],
)
def test_a_malformed_record_is_set_aside_with_the_reason(
    benchmark: str,
    form: str,
    change: dict[str, Any],
    reason: str,
    samples: Samples,
    write_lines: WriteLines,
) -> None:
    good, bad = samples[benchmark], samples[form] | change
    path = write_lines("b.jsonl", good, bad)
    problems = load_problems(Benchmark(benchmark), path)
    assert len(problems.problems) == 1
    assert len(problems.quarantined) == 1
    assert reason in problems.quarantined[0].reason
    assert problems.quarantined[0].place.startswith("line 2")


def test_lines_that_are_no_records_and_repeated_ids_are_set_aside(
    samples: Samples, write_lines: WriteLines
) -> None:
    record = samples["humaneval"]
    path = write_lines("h.jsonl", "{broken", "[1]", record, record)
    problems = load_problems(Benchmark.HUMANEVAL, path)
    assert len(problems.problems) == 1
    reasons = [left_out.reason for left_out in problems.quarantined]
    assert [reason.split(":")[0] for reason in reasons] == [
        "not JSON",
        "a list, not an object",
        "a record with this id came before",
    ]


def test_evalplus_release_form_is_refused_with_the_way_to_the_other(
    samples: Samples, write_lines: WriteLines
) -> None:
    record = {k: v for k, v in samples["humaneval"].items() if k != "test"} | {"base_input": [[1]]}
    with pytest.raises(EvaluationError, match=r"`test` column, see docs/evaluation\.md"):
        load_problems(Benchmark.HUMANEVAL_PLUS, write_lines("h.jsonl", record))


def test_unusable_files_are_named_with_the_fix(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(EvaluationError) as caught:
            load_problems(Benchmark.MBPP, path)
        return str(caught.value)

    assert "no such file; give the path" in message(tmp_path / "absent.jsonl")
    for name, content in (("a.jsonl.gz", b"no gzip"), ("a.parquet", b"PAR"), ("a.json", b"{")):
        (tmp_path / name).write_bytes(content)
        assert f"--benchmark mbpp={tmp_path / name}: cannot be read" in message(tmp_path / name)
    (tmp_path / "a.csv").write_text("")
    assert "use one of .jsonl, .jsonl.gz, .json, .parquet" in message(tmp_path / "a.csv")
    (tmp_path / "empty.jsonl").write_text("")
    assert "no usable problem in 0 records" in message(tmp_path / "empty.jsonl")


def test_an_unknown_benchmark_lists_the_known_ones() -> None:
    with pytest.raises(EvaluationError, match="'humanevil' is unknown; use one of humaneval, "):
        Benchmark.parse("humanevil")


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("assert f(1) == 2", "f"),
        ("assert set(g(1)) == set(f(2))", "g"),  # builtins are none of the solution's
        ("assert other(f(1))", "f"),
        ("assert x", ""),
        ("assert (", ""),
    ],
)
def test_the_called_first_is_the_solutions_own_that_is_called_first(
    test: str, expected: str
) -> None:
    assert called_first(test, "def f(x):\n  return x\ndef g(x):\n  return x") == expected

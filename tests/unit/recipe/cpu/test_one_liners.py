"""The one-liners: what is asked, what is expected, and what is held out."""

import json
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recipe.cpu.micro_tasks import Split
from recipe.cpu.one_liners import (
    FAMILIES,
    Family,
    OneLiner,
    one_liners,
    prepare_one_liners,
    record,
)


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def problem(request: pytest.FixtureRequest) -> OneLiner:
    return OneLiner(request.param, {"a": 17, "b": 24, "word": "lamp"})


def test_the_reference_prints_what_is_expected(problem: OneLiner) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", problem.program], capture_output=True, text=True, check=True
    )
    assert done.stdout == problem.output


def by_name(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


@pytest.mark.parametrize(
    ("name", "question", "output"),
    [
        ("product", "prints the product of 17 and 24", "408\n"),
        ("half", "prints half of 17, rounded down", "8\n"),
        ("reversed", "prints the word lamp backwards", "pmal\n"),
        ("length", "prints the number of letters in the word lamp", "4\n"),
    ],
)
def test_the_question_is_plain_english(name: str, question: str, output: str) -> None:
    one = OneLiner(by_name(name), {"a": 17, "b": 24, "word": "lamp"})
    assert f"Write a Python program that {question}." in one.question
    assert one.output == output


def test_train_and_test_share_no_problem_and_both_have_all_families() -> None:
    train = list(islice(one_liners(Split.TRAIN, 0), 600))
    test = list(islice(one_liners(Split.TEST, 0), 128))
    asked = [one.question for one in (*train, *test)]
    assert len(set(asked)) == len(asked)
    for drawn in (train, test):
        counts = Counter(one.family.name for one in drawn)
        assert counts.keys() == {family.name for family in FAMILIES}


def test_equal_seeds_give_equal_problems() -> None:
    first, again, other = (
        [one.question for one in islice(one_liners(Split.TRAIN, seed), 20)] for seed in (3, 3, 4)
    )
    assert first == again != other


def test_the_rows_are_those_of_programs_that_read_nothing(tmp_path: Path) -> None:
    train_file, test_file = prepare_one_liners(tmp_path, 20, 5)
    (row, *others) = pq.read_table(train_file).to_pylist()
    assert len(others) == 19
    assert pq.read_metadata(test_file).num_rows == 5
    (first,) = islice(one_liners(Split.TRAIN, 0), 1)
    assert row["prompt"] == [{"role": "user", "content": first.question}]
    assert json.loads(row["reward_model"]["ground_truth"]) == {
        "inputs": [""],
        "outputs": [first.output],
    }
    assert row["extra_info"]["reference_solution"] == first.program
    assert record(first)["difficulty"] == row["extra_info"]["difficulty"] == first.family.name

"""verl's scorer for mathematics as a reward: what counts, what is told, and by what contract."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.data.math_records import to_problem, to_row
from recipe.online_refiner.contract.of_rewards import reward_violations
from recipe.online_refiner.scores import group_value, score_of
from reward.math_dapo import TRAITS, compute_score


def scored(response: str, truth: str = "33", **settings: Any) -> tuple[float, str, str]:
    found = compute_score("math_dapo", response, truth, {}, **settings)
    assert found["acc"] == (found["score"] > 0)
    return found["score"], found["verdict"], found["pred"]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("It is so.\nAnswer: 33", (1.0, "accepted", "33")),
        ("answer : $33$", (1.0, "accepted", "33")),
        ("Answer: 32\nNo.\nAnswer: 33", (1.0, "accepted", "33")),
        ("Answer: 33\nNo.\nAnswer: 32", (-1.0, "wrong_answer", "32")),
        (r"So it is \boxed{33}.", (1.0, "accepted", "33")),
        (r"Answer: \boxed{33}", (1.0, "accepted", "33")),
        (r"\boxed{34}", (-1.0, "wrong_answer", "34")),
        ("It is 33.", (-1.0, "no_answer", "")),
        ("", (-1.0, "no_answer", "")),
        ("Answer: 33" + "\nAnd so on." * 40, (-1.0, "no_answer", "")),
        (r"\boxed{33", (-1.0, "no_answer", "")),
    ],
)
def test_the_last_answer_near_the_end_counts(response: str, expected: tuple[Any, ...]) -> None:
    assert scored(response) == expected


def test_only_a_box_counts_if_that_is_asked_for() -> None:
    assert scored("Answer: 33", strict_box_verify=True) == (-1.0, "no_answer", "")
    assert scored(r"\boxed{33}", strict_box_verify=True) == (1.0, "accepted", "33")


@pytest.mark.parametrize("answer", [0, 7, -1, 1007, 40320, -(10**6), 10**30])
def test_every_prepared_answer_is_accepted_and_its_neighbour_is_not(answer: int) -> None:
    truth = to_problem({"problem": "What?", "answer": str(answer)}, 0, 100).answer
    assert scored(f"Answer: {answer}", truth)[0] == 1.0
    assert scored(rf"\boxed{{{answer}}}", truth)[0] == 1.0
    assert scored(f"Answer: {answer + 1}", truth)[0] == -1.0


def test_no_response_breaks_the_scorer() -> None:
    parts = [r"\boxed", "{", "}", "Answer", ":", "33", "$", "=", "\n", " ", r"\text{", r"\frac12"]
    rng = random.Random(0)
    for _ in range(3000):
        response = "".join(rng.choices(parts, k=rng.randrange(12)))
        assert scored(response)[0] in (1.0, -1.0)


def test_the_score_before_shaping_is_what_the_filter_and_dynamic_sampling_read() -> None:
    extras = dict(compute_score("math_dapo", "Answer: 33", "33"))
    assert TRAITS.numbers == tuple(key for key, value in extras.items()
                                   if isinstance(value, float) and key != "score")  # fmt: skip
    assert TRAITS.best_score is not None
    assert TRAITS.best_score({}) == extras["score"]
    extras |= {"overlong_reward": -0.9, "overlong": True}  # as verl's reward manager adds them
    assert (score_of(extras).reward, score_of(extras).verdict) == (1.0, "accepted")
    assert group_value(extras, "score", shaped=0.1) == 1.0
    assert group_value(extras, "acc", shaped=0.1) == 1.0


def test_it_keeps_the_contract_on_prepared_rows(tmp_path: Path) -> None:
    problem = to_problem({"problem": "What is 30 + 3?", "answer": 33}, 0, 100)
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([to_row(problem, "math_dapo", "train", 0)]), path)
    assert reward_violations("pkg://reward.math_dapo", [f"rows={path}"]) == []


def test_rows_of_programs_are_told_apart() -> None:
    assert TRAITS.row_fault is not None
    for truth, words in (('{"inputs": []}', "is JSON"), ("", "no text"), (None, "no text")):
        assert words in TRAITS.row_fault({"reward_model": {"ground_truth": truth}})
    assert TRAITS.row_fault({"reward_model": {"ground_truth": "-3"}}) == ""

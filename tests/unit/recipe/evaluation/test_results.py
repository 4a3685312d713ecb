"""Verdicts to scores, gains and tables, by hand."""

import math
from typing import Any

import pytest

from recipe.evaluation.compare import (
    check_same_problems,
    compare,
    gain,
    on_common_problems,
    unequal,
)
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.judging import Judged
from recipe.evaluation.passk import Estimate, wilson
from recipe.evaluation.results import score
from recipe.evaluation.tables import percent, points, signed, table


def verdict(problem: str, sample: int, right: bool, formed: bool = True, **more: Any) -> Judged:
    known = {"verdict": "accepted" if right else "wrong_answer", "passed": 2 * right, "total": 2}
    return Judged(problem, sample, formed, score=1.0 if right else -0.3, **(known | more))


# Two problems with four samples: 2 of 4 right; none right, one of them no program.
FOUR = [
    *(verdict("a", k, right=k < 2) for k in range(4)),
    *(verdict("b", k, right=False, formed=k > 0) for k in range(4)),
]


def test_scores_average_over_problems() -> None:
    scores = score("humaneval", "chat", FOUR, (1, 2, 8))
    assert (scores.problems, scores.fewest, scores.most) == (2, 4, 4)
    assert scores.pass_at[1].value == pytest.approx((2 / 4 + 0) / 2)
    assert scores.pass_at[2].value == pytest.approx((5 / 6 + 0) / 2)
    assert 8 not in scores.pass_at  # only four samples
    assert scores.format.value == pytest.approx((1 + 3 / 4) / 2)
    assert scores.skill == pytest.approx(2 / 7)
    assert scores.pass_at[1].value == pytest.approx(scores.format.value * (scores.skill or 0))


def test_nothing_judged_gives_no_numbers() -> None:
    scores = score("mbpp", "chat", [], (1,))
    assert (scores.problems, scores.pass_at, scores.skill) == (0, {}, None)
    assert math.isnan(scores.format.value)


def test_cut_off_is_the_share_that_ended_for_its_length() -> None:
    verdicts = [verdict("a", 0, True, finish="length"), verdict("b", 0, True, finish="stop")]
    assert score("mbpp", "chat", verdicts, (1,)).cut_off == 0.5


def test_apps_is_scored_by_difficulty() -> None:
    verdicts = [
        verdict("1", 0, True, difficulty="interview"),
        verdict("2", 0, False, difficulty="interview", passed=1),
        verdict("3", 0, False, difficulty="introductory", verdict="compile_error", formed=False),
    ]
    first, second, every = score("apps", "apps", verdicts, (1,)).tiers
    assert [tier.difficulty for tier in (first, second, every)] == [
        "introductory",
        "interview",
        "all",
    ]
    assert (second.problems, second.strict) == (2, wilson(1, 2))
    assert second.tests.value == pytest.approx((1.0 + 0.5) / 2)
    assert second.score == pytest.approx((1.0 - 0.3) / 2)
    assert first.verdicts == {"compile_error": 1}
    assert every.verdicts == {"accepted": 1, "wrong_answer": 1, "compile_error": 1}


def test_a_gain_counts_the_problems_that_both_answered() -> None:
    # On a, b, c: format 1/3 -> 1, pass 1/3 -> 2/3, so skill 1 -> 2/3.
    before = [
        verdict("a", 0, True),
        verdict("b", 0, False, formed=False),
        verdict("c", 0, False, formed=False),
        verdict("d", 0, True),
    ]
    after = [verdict("a", 0, True), verdict("b", 0, True), verdict("c", 0, False)]
    found = gain("dapo", "mbpp", before, after)
    assert found.problems == 3
    assert found.passes.value == pytest.approx(1 / 3)
    assert found.format == pytest.approx(2 / 3 * (1 + 2 / 3) / 2)
    assert found.skill == pytest.approx(-1 / 3 * (1 / 3 + 1) / 2)


def test_compare_prints_one_table_a_protocol_and_the_gains() -> None:
    base = {("mbpp", "chat"): [verdict(str(n), 0, n < 1) for n in range(4)]}
    tuned = {
        ("mbpp", "chat"): [verdict(str(n), 0, n < 3) for n in range(4)],
        ("humaneval", "bigcode"): [verdict("0", 0, True)],
    }
    text = compare({"base": base, "dynamic": tuned}, 1)
    bigcode, chat = text.split("## ")[1:]
    assert "| base     | –" in bigcode
    assert "| base     | 25.0 [4.6, 69.9]  |" in chat
    assert "| dynamic  | 75.0 [30.1, 95.4] |" in chat
    gains = next(line for line in chat.splitlines() if "| mbpp " in line and "+50.0" in line)
    cells = [cell.strip() for cell in gains.split("|")[1:-1]]
    assert cells[:3] == ["mbpp", "dynamic", "4"]
    assert cells[3].startswith("+50.0 [")
    assert cells[4:] == ["0.0", "+50.0"]


def test_compare_refuses_a_k_that_nobody_has() -> None:
    base = {("mbpp", "chat"): [verdict("1", 0, True)]}
    with pytest.raises(EvaluationError, match="--pass-at 10: no folder has so many samples"):
        compare({"base": base}, 10)


KEY = ("mbpp", "chat")


def on(*problems: str) -> dict[tuple[str, str], list[Judged]]:
    return {KEY: [verdict(problem, 0, True) for problem in problems]}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            "abc",
            "ab",
            r"mbpp, chat: not the same problems .base 3, tuned 2; 2 in common.* --common",
        ),
        ("abc", "abz", "base 3, tuned 3; 2 in common"),
    ],
)
def test_scores_over_different_problems_are_not_put_side_by_side(
    first: str, second: str, message: str
) -> None:
    arms = {"base": on(*first), "tuned": on(*second)}
    one_file = {"base": {"mbpp": "x"}, "tuned": {"mbpp": "x"}}
    with pytest.raises(EvaluationError, match=message):
        check_same_problems(arms, one_file)
    common = on_common_problems(arms)
    check_same_problems(common, one_file)
    for arm in arms:
        assert [v.problem_id for v in common[arm][KEY]] == ["a", "b"]


def test_equal_problems_compare_whatever_the_order_and_where_only_one_was_evaluated() -> None:
    other = {("apps", "apps"): [verdict("9", 0, True)]}
    arms = {"base": on("a", "b"), "tuned": on("b", "a") | other}
    check_same_problems(arms, {"base": {"mbpp": "x"}, "tuned": {"mbpp": None, "apps": "y"}})


def test_two_editions_of_a_benchmark_do_not_compare() -> None:
    arms = {"base": on("a"), "tuned": on("a")}
    with pytest.raises(EvaluationError, match=r"mbpp: the files hold different .*base x, tuned y"):
        check_same_problems(arms, {"base": {"mbpp": "x"}, "tuned": {"mbpp": "y"}})


def test_evaluations_under_other_conditions_are_called_out() -> None:
    base = {"temperature": 0.0, "top_p": 1.0, "file of mbpp": "a" * 64}
    tuned = {"temperature": 0.8, "top_p": 1.0, "file of mbpp": "b" * 64, "file of apps": "c"}
    assert unequal({"base": base, "dapo": base | {"file of apps": "c"}}) == []
    assert unequal({"base": base, "tuned": tuned}) == [
        "Not the same for all, so scores do not compare: temperature (base 0.0, tuned 0.8)",
        "Not the same for all, so scores do not compare: file of mbpp "
        "(base aaaaaaaaaaaa, tuned bbbbbbbbbbbb)",
    ]


@pytest.mark.parametrize(
    ("value", "expected"), [(0.031, "+3.1"), (-0.0124, "-1.2"), (0.0004, "0.0"), (-0.0004, "0.0")]
)
def test_points_are_signed_unless_they_round_to_nothing(value: float, expected: str) -> None:
    assert points(value) == expected


def test_numbers_are_printed_in_percent_with_their_interval() -> None:
    assert percent(Estimate(0.2073, 0.152, 0.2754)) == "20.7 [15.2, 27.5]"
    assert signed(Estimate(0.031, -0.012, 0.0744)) == "+3.1 [-1.2, +7.4]"
    assert percent(Estimate(math.nan, math.nan, math.nan)) == "–"


def test_a_table_is_markdown_with_even_columns() -> None:
    assert table(["a", "bcd"], [["xyz", "1"]]) == "| a   | bcd |\n| --- | --- |\n| xyz | 1   |"

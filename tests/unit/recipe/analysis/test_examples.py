"""Episodes for the page: chosen one of each kind, marked where a' differs, harmless to show."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipe.analysis.choice import caption, choose_episode
from recipe.analysis.examples import choose_examples, write_examples_csv
from recipe.analysis.marked_text import HEAT_LEVELS, Span, view_of
from recipe.analysis.runs import Run, load_run

MakeEpisode = Callable[..., dict[str, Any]]


def run_with(folder: Path, *records: dict[str, Any]) -> Run:
    (folder / "run.json").write_text('{"arm": "dynamic_sft", "seed": 3}')
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "episodes.jsonl").write_text(lines)
    return load_run(folder)


def short(**changes: Any) -> dict[str, Any]:
    """The answer `a b` refined to `a c`, with a CE of 0.1 and 2 nats."""
    return {
        "answer_tokens": ["a", " b"],
        "answer": "a b",
        "refined_tokens": ["a", " c"],
        "refined": "a c",
        "copied": [1, 0],
        "ce": [0.1, 2.0],
    } | changes


def test_examples_are_one_of_each_kind_the_frequent_ones_first(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    failed = {"refined_reward": None, "accepted": False}
    unhelpful = {"refined_reward": -0.3, "accepted": False}
    run = run_with(
        tmp_path,
        new_episode(**short(verdict="runtime_error", problem_id="1")),
        new_episode(**short(verdict="wrong_answer", problem_id="2")),
        new_episode(**short(verdict="wrong_answer", problem_id="3")),
        new_episode(**short(problem_id="4", ce=None, **unhelpful)),
        new_episode(**short(problem_id="5", ce=None, verbatim=True, **unhelpful)),
        new_episode(**short(problem_id="6", ce=None, **failed)),
    )
    examples = choose_examples([run])
    assert [(item.why, item.choice.digest.problem_id) for item in examples] == [
        ("an improvement on: wrong answer", "2"),
        ("an improvement on: runtime error", "1"),
        ("an edit that did not raise the reward", "4"),
        ("a verbatim copy", "5"),
    ]
    first, *others = choose_examples([run], most=3)
    assert first.why == "an improvement on: wrong answer" and len(others) == 2


def test_an_arm_that_learns_from_refinements_is_shown_before_one_that_observes_them(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    """Whatever the order of folders, and however much clearer the other arm's episode is."""
    runs = []
    for arm, kind, ce in (("a", "none", 9.0), ("z", "dynamic", 1.0)):
        (tmp_path / arm).mkdir()
        run = run_with(tmp_path / arm, new_episode(**short(ce=[0.0, ce])))
        runs.append(replace(run, arm=arm, info={"kind": kind}))
    for order in (runs, runs[::-1]):
        choice = choose_episode(order)
        assert choice is not None and choice.run.arm == "z"
        assert "only observed" not in caption(choice)
        assert choose_examples(order)[0].choice.run.arm == "z"
    alone = choose_episode(runs[:1])
    assert alone is not None and "refinements are only observed" in caption(alone)


def test_a_scale_says_that_it_ends_below_the_largest_value(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    for ce, exceeds in ((9.0, False), (12.0, True)):
        run = run_with(tmp_path, new_episode(**short(ce=[0.0, ce])))
        choice = choose_episode([run])
        assert choice is not None and view_of(choice).exceeds_limit is exceeds


def test_a_problem_is_shown_once_where_there_are_others(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    run = run_with(
        tmp_path,
        *[new_episode(**short(verdict="wrong_answer", problem_id="1"))] * 3,
        new_episode(**short(verdict="runtime_error", problem_id="1", ce=[0.0, 9.0])),
        new_episode(**short(verdict="runtime_error", problem_id="2", ce=[0.0, 1.0])),
    )
    assert [item.choice.digest.problem_id for item in choose_examples([run])] == ["1", "2"]


def test_tokens_are_marked_and_coloured_by_their_ce(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    choice = choose_episode([run_with(tmp_path, new_episode(**short()))])
    assert choice is not None
    view = view_of(choice)
    assert view.before == (Span("a"), Span(" b", marked=True))
    assert view.after == (
        Span("a", heat=1, hint="CE 0.1 nats"),
        Span(" c", marked=True, heat=HEAT_LEVELS, hint="CE 2 nats"),
    )
    assert view.heat_limit == 2.0 and "seed 3" in view.where


def test_the_place_of_an_insertion_is_kept_in_a(tmp_path: Path, new_episode: MakeEpisode) -> None:
    record = short(refined_tokens=["a", "x", " b"], copied=[1, 0, 1], ce=[0.1, 2.0, 0.1])
    choice = choose_episode([run_with(tmp_path, new_episode(**record))])
    assert choice is not None
    assert view_of(choice).before == (Span("a"), Span(" b", inserted_before=True))


def test_the_table_of_examples_holds_texts_that_no_spreadsheet_computes(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    prompt = '=HYPERLINK("x")\nline'
    run = run_with(tmp_path, new_episode(**short(prompt=prompt)))
    path = write_examples_csv(choose_examples([run]), tmp_path / "examples.csv")
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["prompt"].startswith('"=') and json.loads(row["prompt"]) == prompt
    assert (row["reward"], row["refined_reward"], row["seed"]) == ("-0.3", "1.0", "3")

"""In which reading the cross entropy of an episode was logged, and of which tokens."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from recipe.analysis.choice import Choice
from recipe.analysis.episodes import digest, mean_ce, parse_episode
from recipe.analysis.heatmap import draw_heatmap, write_heatmap_csv
from recipe.analysis.marked_text import view_of
from recipe.analysis.runs import compare_runs, load_run
from recipe.analysis.style import LIGHT
from recipe.analysis.viewer.app import create_app
from recipe.analysis.viewer.library import Library
from recipe.analysis.viewer.readings import mean_cross_entropy, read_columns
from recipe.analysis.viewer.rows import Source, read_row

MakeEpisode = Callable[..., dict[str, Any]]
SELF_FED = {
    "answer_tokens": ["a", "b"],
    "refined_tokens": ["a", "x", "c", "d"],
    "answer": "ab",
    "refined": "axcd",
    "copied": [1, 0, 0, 0],
    "ce": [0.5, 3.5, 0.0, 0.0],
    "ce_asked": [1, 1, 0, 0],
    "ce_reading": "self_feeding",
}
"""a has two tokens, so two of a' are asked for."""


def test_ce_has_the_reading_that_was_logged_with_it(new_episode: MakeEpisode) -> None:
    columns, absent = read_columns(new_episode(**SELF_FED))
    assert columns["self_feeding"].values == (0.5, 3.5, None, None)
    assert "not logged" in absent["teacher_forcing"]
    columns, absent = read_columns(new_episode(ce_reading="teacher_forcing"))
    assert "teacher_forcing" in columns and "not logged" in absent["self_feeding"]


def test_an_older_line_without_a_reading_was_teacher_forced(new_episode: MakeEpisode) -> None:
    assert "teacher_forcing" in read_columns(new_episode())[0]


def test_both_readings_of_one_episode_can_be_looked_at(new_episode: MakeEpisode) -> None:
    teacher = SELF_FED | {"ce_reading": "teacher_forcing", "ce_asked": None}
    both = teacher | {"cross_entropy_self_fed": [0.25, 2.0, None, None]}
    columns, _ = read_columns(new_episode(**both))
    assert columns["teacher_forcing"].values == (0.5, 3.5, 0.0, 0.0)
    assert columns["self_feeding"].values == (0.25, 2.0, None, None)
    assert columns["self_feeding"].limit == 2.0


def test_a_token_that_was_not_asked_for_has_no_colour_and_is_said_to_have_none(
    new_episode: MakeEpisode,
) -> None:
    column = read_columns(new_episode(**SELF_FED))[0]["self_feeding"]
    assert [column.style(index) for index in (0, 1, 2)] == ["h3", "h20", ""]
    assert column.words(1) == "CE, self-fed 3.5 nats"
    assert column.words(2) == "CE, self-fed: not asked for"


def test_without_a_token_that_is_asked_for_there_is_no_column(new_episode: MakeEpisode) -> None:
    columns, absent = read_columns(new_episode(**SELF_FED | {"ce_asked": [0, 0, 0, 0]}))
    assert "self_feeding" not in columns
    assert absent["self_feeding"] == "no token was asked for"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (2.0, "self_feeding")),
        ({"ce_reading": "teacher_forcing", "ce_asked": None}, (1.0, "teacher_forcing")),
        ({"ce": None, "cross_entropy": [1.0, 1.0, 2.0, 4.0]}, (2.0, "teacher_forcing")),
        ({"ce": None}, (None, "")),
    ],
)
def test_the_mean_is_over_the_tokens_that_were_asked_for(
    new_episode: MakeEpisode, changes: dict[str, Any], expected: tuple[float | None, str]
) -> None:
    record = new_episode(**SELF_FED | changes)
    assert mean_cross_entropy(record) == expected
    found = read_row(record, Source.EPISODES, 0)
    assert found is not None and (found[0].ce, found[0].reading) == expected


def test_the_report_sums_only_tokens_that_were_asked_for(new_episode: MakeEpisode) -> None:
    item, problem = digest(new_episode(**SELF_FED), 0)
    assert item is not None and problem is None
    assert mean_ce([item]) == (0.5, 3.5)
    assert (item.refined_length, item.edited_length, item.reading) == (4, 3, "self_feeding")
    nothing, _ = digest(new_episode(ce=None), 0)
    assert nothing is not None and nothing.reading == ""
    assert all(map(math.isnan, mean_ce([nothing])))


def test_the_report_leaves_tokens_that_were_not_asked_for_uncoloured(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    (tmp_path / "episodes.jsonl").write_text(json.dumps(new_episode(**SELF_FED)) + "\n")
    run = load_run(tmp_path)
    choice = Choice(run, run.episodes[0])
    view = view_of(choice)
    assert view.reading == "self-fed"
    assert [(span.text, span.hint) for span in view.after] == [
        ("a", "CE 0.5 nats"), ("x", "CE 3.5 nats"), ("cd", ""),
    ]  # fmt: skip
    figure = draw_heatmap(choice, LIGHT)
    words = [axes.get_xlabel() for axes in figure.axes]
    assert "CE of the policy on a′, self-fed (nats per token)" in words
    rows = write_heatmap_csv(choice, tmp_path / "h.csv").read_text().splitlines()
    assert rows[-2].endswith(",1,") and rows[-3].endswith(",1,3.5")


def test_an_episode_that_was_read_holds_nothing_for_a_token_not_asked_for(
    new_episode: MakeEpisode,
) -> None:
    episode, _ = parse_episode(new_episode(**SELF_FED))
    assert episode is not None
    assert episode.ce == (0.5, 3.5, None, None)


def test_runs_that_read_differently_are_said_to(tmp_path: Path, new_episode: MakeEpisode) -> None:
    records = {"a": new_episode(**SELF_FED), "b": new_episode()}
    for name, record in records.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "episodes.jsonl").write_text(json.dumps(record) + "\n")
    runs = [load_run(tmp_path / name) for name in records]
    message = "how the policy reads a′ for its cross entropy: self-fed, teacher-forced"
    assert any(message in str(finding) for finding in compare_runs(runs))
    assert not any("cross entropy" in str(finding) for finding in compare_runs(runs[:1]))


def test_the_viewer_says_which_reading_it_shows(tmp_path: Path, new_episode: MakeEpisode) -> None:
    run = tmp_path / "run"
    run.mkdir()
    record = new_episode(**SELF_FED)
    (run / "episodes.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "cache").mkdir()
    library = Library([run], tmp_path / "cache")
    library.find()
    library.update()
    with TestClient(create_app(library), base_url="http://127.0.0.1") as client:
        assert ">CE, self-fed</th>" in client.get("/").text
        page = client.get("/episode?run=" + library.names[0] + "&at=0").text
        assert "mean CE 2.000 (self-fed)" in page
        assert "CE, teacher-forced (not logged for this episode)" in page
        mixed = json.dumps(record | {"ce_reading": "teacher_forcing"}) + "\n"
        with (run / "episodes.jsonl").open("a") as file:
            file.write(mixed)
        library.update()
        text = client.get("/").text
        assert ">CE</th>" in text and "2.000 self-fed" in text and "teacher-forced" in text

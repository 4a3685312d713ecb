"""pass@1 in a report: of benchmarks, and of validations during training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.analysis import report
from recipe.analysis.benchmarks import benchmarks_table
from recipe.analysis.comparison import comparison_sheet
from recipe.analysis.derived import outcome_shares
from recipe.analysis.runs import Run, load_run, load_runs, logged_share
from recipe.analysis.summary import summarise
from recipe.analysis.tables import arms_table

MakeRun = Callable[..., Path]
PASSES = "val-aux/micro_apps/solved/mean@1"


def score(benchmark: str, value: float, problems: int = 164, **changes: Any) -> dict[str, Any]:
    """A score of `results.json`, its interval of 0.1 either side."""
    estimate = {"value": value, "low": value - 0.1, "high": value + 0.1}
    fields: dict[str, Any] = {"benchmark": benchmark, "protocol": "bigcode", "problems": problems}
    return fields | {"pass_at": {"1": estimate, "10": estimate}} | changes


@pytest.fixture
def evaluation(tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    """Write an evaluation's results: `evaluation(name, *scores)`."""

    def make(name: str, *scores: Any) -> tuple[str, Path]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(list(scores)))
        return name, tmp_path / name

    return make


def test_evaluations_stand_side_by_side_by_benchmark_and_protocol(
    evaluation: Callable[..., tuple[str, Path]],
) -> None:
    base = evaluation("base", score("humaneval", 0.128), score("mbpp", 0.362, 500))
    tuned = evaluation("tuned", score("humaneval", 0.207))
    table, findings = benchmarks_table([base, tuned])
    assert findings == [] and table is not None
    assert table.header == ("benchmark", "protocol", "problems", "base", "tuned")
    assert table.rows == (
        ("humaneval", "bigcode", "164", "12.8 [2.8, 22.8]", "20.7 [10.7, 30.7]"),
        ("mbpp", "bigcode", "500", "36.2 [26.2, 46.2]", "-"),
    )


def test_scores_over_other_problems_are_not_on_one_line(
    evaluation: Callable[..., tuple[str, Path]],
) -> None:
    table, _ = benchmarks_table(
        [evaluation("base", score("humaneval", 0.2)), evaluation("some", score("humaneval", 1, 60))]
    )
    assert table is not None
    assert [row[2:] for row in table.rows] == [
        ("164", "20.0 [10.0, 30.0]", "-"), ("60", "-", "100.0 [90.0, 110.0]"),
    ]  # fmt: skip


BROKEN = (None, "{", "{}", '["x"]', '[{"pass_at": {}}]', '[{"pass_at": {"1": {"value": "x"}}}]')


@pytest.mark.parametrize("content", BROKEN)
def test_scores_that_cannot_be_read_are_left_out(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    table, findings = benchmarks_table([("base", tmp_path)])
    assert table is None
    assert len(findings) == (content in (None, "{", "{}"))


def test_a_name_without_a_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report.main(["run", "--out", "x", "--evaluation", "base"])
    assert "'base': write NAME=DIR" in capsys.readouterr().err


def test_the_page_shows_them_and_escapes_their_names(
    two_seeds_of_three_arms: Path, tmp_path: Path, evaluation: Callable[..., tuple[str, Path]]
) -> None:
    _, folder = evaluation("base", score("humaneval", 0.128))
    found = load_runs([two_seeds_of_three_arms])
    out = tmp_path / "out"
    (page, *_), _ = report.write_report(
        found, out, pictures=False, evaluations=[("<b>base", folder)]
    )
    text = page.read_text()
    assert "pass@1 on benchmarks" in text and "12.8 [2.8, 22.8]" in text
    assert "&lt;b&gt;base" in text and "<b>base" not in text
    (page, *_), _ = report.write_report(found, out, pictures=False)
    assert "pass@1 on benchmarks" not in page.read_text()


@pytest.fixture
def validated(new_run: MakeRun) -> Callable[..., Run]:
    """A run of eight steps whose validations solve the given shares: `validated({0: 0.4, …})`."""

    def make(passes: dict[int, float]) -> Run:
        folder = new_run("none", steps=8, total=8)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        known = {line["step"]: line["data"] for line in lines}
        core = "val-core/micro_apps/reward/mean@1"
        known[0] = {core: 0.0}
        for step, share in passes.items():
            known[step] |= {PASSES: share}
        text = "".join(json.dumps({"step": s, "data": known[s]}) + "\n" for s in sorted(known))
        (folder / "metrics.jsonl").write_text(text)
        return load_run(folder)

    return make


def test_the_table_of_arms_has_pass_at_1_of_the_validations(
    validated: Callable[..., Run],
) -> None:
    summaries = summarise([validated({0: 0.375, 8: 0.5})])
    (item,) = summaries["none"]
    assert (item.pass_start, item.pass_end) == (0.375, 0.5)
    rows = {row[0]: row[1] for row in arms_table(summaries).rows}
    assert rows["pass@1 in validation, before training"] == "0.38"
    assert rows["pass@1 in validation, last"] == "0.50"


def test_pass_at_1_is_drawn_if_it_was_logged(
    validated: Callable[..., Run], new_run: MakeRun
) -> None:
    runs = [validated({0: 0.375, 8: 0.5})]
    sheet = comparison_sheet(runs, summarise(runs))
    assert "pass@1 in validation" in [plot.title for plot in sheet.plots]
    without = [load_run(new_run("dynamic_sft", steps=8, total=8))]
    titles = [plot.title for plot in comparison_sheet(without, summarise(without)).plots]
    assert "pass@1 in validation" not in titles
    assert "pass@1 in validation, last" not in [
        row[0] for row in arms_table(summarise(without)).rows
    ]


def test_a_run_that_logs_a_share_says_so_and_draws_no_shares_of_outcomes(new_run: MakeRun) -> None:
    folder = new_run("dynamic_sft", steps=3, total=3)
    with (folder / "config.yaml").open("a") as file:
        file.write("  log_share: 0.25\n")
    run = load_run(folder)
    assert logged_share(run) == 0.25
    assert any("a share of 0.25 of the problems" in str(finding) for finding in run.findings)
    skipped = {"refiner/skipped_perfect_total": next(iter(run.metrics.values()))}
    assert outcome_shares(Run(**vars(run) | {"metrics": skipped})) == {}
    whole = Run(**vars(run) | {"metrics": skipped, "configuration": {}})
    assert outcome_shares(whole) != {}

"""The numbers of docs/study.md, derived again from the packed runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.study.equal_time import compare_times, equal_time_table
from recipe.study.pack import unpacked
from recipe.study.plan import read_study
from recipe.study.results import Results, compare_all, read_results
from recipe.study.tables import comparison_table, outcome_table, panels_table, verdict_table
from recipe.study.trainings import FAILURES_FILE

FOLDER = Path(__file__).resolve().parents[4] / "docs" / "study"
STUDIES = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))
MOST_BYTES = 15 << 20
DISAGREEMENT = "monitor/rollout_logprob_diff_max"


@pytest.fixture(scope="module", params=STUDIES)
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    """The results of each study whose runs are packed."""
    packed = FOLDER / f"{request.param}.tar.xz"
    with unpacked(packed) as runs:
        yield read_results(read_study(FOLDER / f"{request.param}.yaml"), runs)


def test_every_table_of_the_document_is_what_the_runs_give(results: Results) -> None:
    document = (FOLDER.parent / "study.md").read_text(encoding="utf-8")
    tables = [outcome_table(results), panels_table(results), verdict_table(results)]
    compared = compare_all(results)
    if compared:
        tables.append(comparison_table(compared, results.study.level))
    for table in tables:
        assert table is not None
        assert table.to_markdown() in document


def test_the_comparison_at_equal_time_is_what_the_runs_give() -> None:
    """Of the one study whose arms were trained beside each other."""
    document = (FOLDER.parent / "study.md").read_text(encoding="utf-8")
    with unpacked(FOLDER / "sane.tar.xz") as runs:
        compared = compare_times(read_results(read_study(FOLDER / "sane.yaml"), runs))
    assert equal_time_table(compared).to_markdown() in document


def test_no_run_is_one_that_the_design_excludes(results: Results) -> None:
    for members in results.runs.values():
        for run in members:
            assert run.metrics[DISAGREEMENT].values.max() <= 1e-3


def test_what_did_not_come_to_its_end_says_why(results: Results) -> None:
    assert results.runs
    for run in results.unfinished:
        assert (run.path / FAILURES_FILE).exists()


def test_the_packs_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < MOST_BYTES

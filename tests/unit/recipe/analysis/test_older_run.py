"""A run folder that an older commit of this project wrote is still read, reported and browsed.

`older_run` is the folder of a training of two steps on the CPU by commit 1190834, without its
weights: it has no `rollouts.jsonl`, which came later, and fewer keys in its records and settings.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from recipe.analysis import report
from recipe.analysis.runs import Run, load_run, load_runs
from recipe.analysis.viewer.index import RunIndex
from recipe.analysis.viewer.rows import Source

OLDER_RUN = Path(__file__).resolve().parents[1] / "older_run"


@pytest.fixture
def older_run(tmp_path: Path) -> Path:
    """A copy, in which files may be made."""
    return Path(shutil.copytree(OLDER_RUN, tmp_path / "older_run"))


def test_its_numbers_are_those_of_its_files(older_run: Path) -> None:
    run: Run = load_run(older_run)
    assert (run.arm, run.seed, run.total_steps) == ("dynamic", 3, 2)
    assert run.info["commit"] == "11908349d1da"
    assert (run.steps, run.findings) == ((1, 2), ())
    assert run.metrics["critic/score/mean"].values.tolist() == pytest.approx([0.49375, 0.18125])
    accepted = [one for one in run.episodes if one.accepted]
    assert (len(run.episodes), len(accepted)) == (15, 13)
    assert run.metrics["constraint/kept_total"].values.tolist() == [4.0, 9.0]
    first = run.read_episode(accepted[0])
    record = json.loads((older_run / "episodes.jsonl").read_text().splitlines()[2])
    assert first.refined == record["refined"]


def test_its_report_is_whole(older_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    report.write_report(load_runs([older_run]), out, pictures=False)
    text = (out / "report.html").read_text()
    assert text.rstrip().endswith("</html>")
    assert "could not be" not in text
    words = " ".join(re.sub("<[^>]+>", " ", text).split())
    for said in (
        "1 run · 1 arm · all finished · commit 11908349d1da",
        "by training step: dynamic from 0.494 at step 1 to 0.181 at step 2",
        "dynamic, seed 3, step 2, problem 0011",
        "refinements: edited 15 refinements: accepted 13",
        "What a start spends its time on",
    ):
        assert said in words, said


def test_the_viewer_lists_its_episodes(older_run: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    index = RunIndex(older_run, tmp_path / "cache")
    index.update()
    rows = index.query("SELECT step, outcome, offset FROM episodes ORDER BY id")
    assert [row["step"] for row in rows] == [1] * 6 + [2] * 9
    assert [row["outcome"] for row in rows].count("improved") == 13
    assert index.problems() == []
    assert index.read(Source.EPISODES, rows[-1]["offset"])["step"] == 2

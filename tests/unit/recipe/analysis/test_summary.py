"""Tables and the verdict: numbers worked out by hand, and no claim beyond them."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipe.analysis.plot import main
from recipe.analysis.runs import Run, load_run
from recipe.analysis.summary import (
    RunSummary,
    Table,
    arms_table,
    summarise,
    window_steps,
    write_summary_csv,
)
from recipe.analysis.verdict import write_verdict

MakeRun = Callable[..., Path]
MakeEpisode = Callable[..., dict[str, Any]]


def logged_run(folder: Path, *steps: dict[str, float], **info: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"arm": "none", "seed": 0} | info))
    lines = [json.dumps({"step": i, "data": data}) for i, data in enumerate(steps, start=1)]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    return load_run(folder)


def summary(arm: str, end: float, **changes: Any) -> RunSummary:
    """A run of 16 of 16 steps that started at 0.3 and scattered by 0.05 over its last 4 steps."""
    empty = dict.fromkeys(RunSummary.__dataclass_fields__, math.nan)
    counts = {"verbatim": 0, "edited": 0, "accepted": 0, "disagreement_metric": None}
    item = RunSummary(**empty | counts)  # type: ignore[arg-type]
    item = replace(item, arm=arm, seed=0, steps=16, total_steps=16, window=4)
    return replace(item, reward_start=0.3, reward_end=end, reward_scatter=0.05, **changes)


def verdict(*items: RunSummary) -> str:
    arms: dict[str, list[RunSummary]] = {}
    for item in items:
        arms.setdefault(item.arm, []).append(item)
    return "\n".join(write_verdict(arms))


@pytest.mark.parametrize(
    ("steps", "window"), [(1, 1), (7, 1), (8, 2), (16, 4), (40, 10), (150, 10)]
)
def test_start_and_end_average_a_quarter_of_the_steps_at_most_ten(steps: int, window: int) -> None:
    assert window_steps(steps) == window


def test_a_run_is_summed_up_as_by_hand(tmp_path: Path, new_episode: MakeEpisode) -> None:
    rewards = (0.0, 0.2, 0.4, 0.4, 0.4, 0.4, 0.5, 0.7, 0.9)
    steps = [
        {
            "critic/score/mean": reward,
            "monitor/kl_to_reference": index / 2,
            "constraint/improvement_ratio": (0.3, 0.2, 0.1)[index // 3],
            "training/rollout_probs_diff_max": 1e-5 * (index == 4),
            "timing_s/step": 2.0 + 10 * (index == 0),
        }
        for index, reward in enumerate(rewards)
    ]
    times = {"started_at": "2026-01-01T10:00:00+00:00", "finished_at": "2026-01-01T10:01:30+00:00"}
    run = logged_run(tmp_path, *steps, **times)
    tokens = {"refined_tokens": ["a", "b", "c"], "copied": [1, 1, 0]}
    episodes = [
        new_episode(**tokens, ce=[0.1, 0.3, 4.0]),
        new_episode(**tokens, ce=[0.2, 0.2, 2.0]),
        new_episode(**tokens, ce=None, accepted=False, verbatim=True),
    ]
    lines = "".join(json.dumps(record) + "\n" for record in episodes)
    (tmp_path / "episodes.jsonl").write_text(lines)
    item = summarise([load_run(run.path)])["none"][0]
    assert item.window == 2
    assert (item.reward_start, item.reward_end) == pytest.approx((0.1, 0.8))
    assert item.reward_scatter == pytest.approx(0.2 / 2**0.5)
    assert item.kl_end == 4.0
    assert (item.improvement_first, item.improvement_last) == pytest.approx((0.3, 0.1))
    assert (item.verbatim, item.edited, item.accepted) == (1, 2, 2)
    assert (item.ce_copied, item.ce_edited) == pytest.approx((0.2, 3.0))
    assert item.disagreement_max == 1e-5
    assert (item.step_time_s, item.steps_time_s, item.wall_time_s) == (2.0, 28.0, 90.0)


def test_what_was_not_logged_is_absent_and_not_zero(tmp_path: Path) -> None:
    runs = [
        logged_run(tmp_path / "a", {"critic/score/mean": 0.5}, arm="none"),
        logged_run(tmp_path / "b", {"actor/entropy": 0.5}, arm="static_kl"),
    ]
    table = {row[0]: row[1:] for row in arms_table(summarise(runs)).rows}
    assert table["reward, end"] == ("0.50", "-")
    assert "KL to reference, end (nats)" not in table


def test_seeds_are_averaged_with_their_range_and_counts_are_added() -> None:
    arms = {"none": [summary("none", 0.2, edited=3), summary("none", 0.6, edited=4)]}
    table = {row[0]: row[1] for row in arms_table(arms).rows}
    assert table["runs"] == "2"
    assert table["reward, end"] == "0.40 (0.20..0.60)"
    assert table["refinements: edited"] == "7"


def test_a_table_is_aligned_as_text_and_valid_as_markdown() -> None:
    table = Table(("", "none"), (("reward", "0.5"), ("KL", "124")))
    assert table.to_text() == "        none\n------------\nreward   0.5\nKL       124"
    assert table.to_markdown().splitlines()[1] == "| --- | ---: |"


def test_the_csv_has_a_line_per_run_and_leaves_absent_numbers_empty(tmp_path: Path) -> None:
    arms = {"none": [summary("none", 0.2), summary("none", 0.4, seed=None)]}
    with write_summary_csv(arms, tmp_path / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["reward_end"] for row in rows] == ["0.2", "0.4"]
    assert rows[1]["seed"] == rows[0]["kl_end"] == ""


def test_the_verdict_names_every_end_best_first_and_warns_of_one_seed() -> None:
    text = verdict(summary("none", -0.11), summary("dynamic_sft", 0.52))
    assert "over the last 4 steps: dynamic (sft) ended at 0.52, none ended at −0.11." in text
    assert "dynamic (sft) ended 0.63 above none." in text
    assert "One run of each arm: another seed may order the arms differently." in text


def test_an_expected_winner_that_loses_is_reported() -> None:
    text = verdict(summary("none", 0.52), summary("dynamic_sft", 0.11))
    assert "dynamic (sft) did not help here: it ended 0.41 below none." in text


def test_a_difference_within_the_scatter_is_no_difference() -> None:
    text = verdict(summary("none", 0.50), summary("dynamic_sft", 0.54))
    assert "dynamic (sft) and none are not told apart (difference 0.04)." in text
    assert "above none" not in text


def test_overlapping_seeds_are_not_told_apart_whatever_their_means() -> None:
    baselines = [summary("none", 0.1), summary("none", 0.5)]
    text = verdict(*baselines, summary("dynamic_sft", 0.4), summary("dynamic_sft", 0.9))
    assert "not told apart (difference 0.35)" in text
    assert "As few as 2 runs an arm" in text


def test_seeds_that_do_not_overlap_are_told_apart() -> None:
    baselines = [summary("none", 0.1), summary("none", 0.2)]
    text = verdict(*baselines, summary("dynamic_sft", 0.4), summary("dynamic_sft", 0.9))
    assert "dynamic (sft) ended 0.50 above none." in text


def test_arms_of_different_settings_are_not_compared() -> None:
    item = summary("dynamic_sft", 0.9)
    text = "\n".join(
        write_verdict({"sane/none": [summary("none", 0.1)], "stress/dynamic_sft": [item]})
    )
    assert "above" not in text


def test_unfinished_and_silent_arms_are_named() -> None:
    silent = replace(summary("static_kl", math.nan), window=1)
    text = verdict(
        summary("none", 0.1),
        replace(summary("dynamic_sft", 0.9), steps=7),
        silent,
    )
    assert "Not at the end of their steps: dynamic (sft) 7 of 16" in text
    assert "Without a logged reward, so not compared: static KL." in text
    assert "over the last 4 steps" in text


def test_without_rewards_nothing_is_claimed() -> None:
    assert verdict(summary("none", math.nan)) == (
        "No run logged a reward: nothing can be said about the arms."
    )


def test_a_course_within_the_scatter_is_no_course() -> None:
    text = verdict(summary("none", 0.33), summary("static_kl", 0.1))
    assert "none stayed near its start (0.30), static KL lost 0.20" in text


@pytest.mark.parametrize(("gap", "word"), [(3e-5, "within"), (3e-3, "above")])
def test_the_agreement_of_actor_and_rollout_is_judged_by_1e_4(gap: float, word: str) -> None:
    item = summary("none", 0.1, disagreement_max=gap, disagreement_metric="some/metric")
    assert f"{gap:.1e} on a token ({word} 1e-04; some/metric)" in verdict(item)


def test_the_command_writes_every_file_it_names(
    new_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_run("dynamic_sft")
    new_run("none", steps=5)
    out = tmp_path / "figures"
    assert main([str(folder.parents[1]), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    expected = {
        *("curves.png", "curves-dark.png", "curves.pdf", "curves.csv"),
        *("heatmap.png", "heatmap-dark.png", "heatmap.pdf", "heatmap.csv"),
        *("summary.csv", "summary.md"),
    }
    assert {path.name for path in out.iterdir()} == expected
    assert all(str(out / name) in printed for name in expected)
    assert "dynamic (sft) ended at" in printed
    assert "has reached step 5 of 16" in printed
    assert "has reached step 5 of 16" in (out / "summary.md").read_text()


def test_runs_without_a_fit_episode_give_curves_and_say_why_no_heat_map(
    new_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_run(steps=2, episodes_a_step=0)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "no heat map: no accepted episode" in capsys.readouterr().out
    assert not (tmp_path / "out" / "heatmap.png").exists()


def test_without_any_run_the_command_fails_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 1
    assert "absent: does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

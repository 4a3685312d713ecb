"""Tables and the verdict: numbers worked out by hand, and no claim beyond them."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipe.analysis.plot import main
from recipe.analysis.runs import Run, load_run
from recipe.analysis.summary import RunSummary, summarise, window_steps
from recipe.analysis.tables import Table, arms_table, write_summary_csv
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
    """A run of 16 of 16 steps that started at 0.3."""
    empty = dict.fromkeys(RunSummary.__dataclass_fields__, math.nan)
    counts = {"verbatim": 0, "edited": 0, "accepted": 0, "disagreement_metric": None}
    item = RunSummary(**empty | counts)  # type: ignore[arg-type]
    item = replace(item, arm=arm, seed=0, steps=16, total_steps=16, window=4, compared_to=16)
    item = replace(item, reward_start=0.3, reward_end=end, validation_step=-1)
    return replace(item, **changes)


def verdict(*items: RunSummary) -> str:
    arms: dict[str, list[RunSummary]] = {}
    for item in items:
        arms.setdefault(item.arm, []).append(item)
    return "\n".join(write_verdict(arms).sentences)


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


def test_single_runs_are_described_and_nothing_is_claimed_however_far_apart() -> None:
    text = verdict(summary("none", -0.11), summary("dynamic_sft", 0.52))
    assert "over the last 4 steps up to step 16: dynamic (sft) 0.52, none −0.11." in text
    assert "so no difference is shown to be more than chance" in text
    assert "at least 6 seeds of each arm" in text
    assert "above" not in text and "p =" not in text


def seeds(arm: str, *ends: float) -> list[RunSummary]:
    return [summary(arm, end, seed=seed) for seed, end in enumerate(ends)]


def test_enough_seeds_that_do_not_overlap_show_an_effect_with_its_level() -> None:
    low, high = (0.1, 0.2, 0.15, 0.12, 0.13, 0.14), (0.6, 0.7, 0.62, 0.66, 0.63, 0.63)
    text = verdict(*seeds("none", *low), *seeds("dynamic_sft", *high))
    claim = "runs of dynamic (sft) end above runs of none (by 0.50 on average)"
    assert f"At the 5 % level over all comparisons: {claim}." in text
    words = "higher in 100 % of their pairs, p = 0.031, shown at the 5 % level"
    assert f"(6 against 6 seeds, {words})" in text


@pytest.mark.parametrize("seeds", [1, 5, 8])
def test_of_pages_on_arms_that_do_not_differ_at_most_five_percent_say_one_does(seeds: int) -> None:
    """The sentences themselves, of four arms some runs of which collapse."""
    rng, pages = np.random.default_rng(11), 100
    said = 0
    for _ in range(pages):
        items = [
            summary(arm, float(rng.choice([-0.7, 0.4]) + rng.normal(0, 0.02)))
            for arm in ("none", "static_kl", "dynamic_sft", "dynamic_advantage")
            for _ in range(seeds)
        ]
        said += "level over all comparisons:" in verdict(*items)
    assert said / pages <= (0 if seeds < 6 else 0.05 + 2 * math.sqrt(0.05 * 0.95 / pages))


def test_an_expected_winner_that_loses_is_reported() -> None:
    low, high = (0.1, 0.2, 0.15, 0.12, 0.13, 0.14), (0.6, 0.7, 0.62, 0.66, 0.63, 0.63)
    text = verdict(*seeds("none", *high), *seeds("dynamic_sft", *low))
    assert "runs of dynamic (sft) end below runs of none (by 0.50 on average)" in text


def test_without_an_effect_the_smallest_p_is_named() -> None:
    ends = (0.1, 0.2, 0.15, 0.12, 0.13, 0.14)
    text = verdict(*seeds("none", *ends), *seeds("dynamic_sft", *ends[::-1]))
    assert (
        "No difference in training reward is shown at the 5 % level; the smallest p is 1." in text
    )


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_seeds_that_do_not_overlap_show_nothing_and_say_what_it_takes(
    count: int,
) -> None:
    baselines, others = (0.1, 0.2, 0.15)[:count], (0.6, 0.7, 0.65)[:count]
    text = verdict(*seeds("none", *baselines), *seeds("dynamic_sft", *others))
    assert "No difference in training reward is shown at the 5 % level." in text
    assert "With 1 comparison it takes at least 6 seeds of each arm." in text
    assert "dynamic (sft) minus none: 0.50" in text


def test_arms_that_differ_in_more_than_the_constraint_are_not_compared() -> None:
    arms = {
        "none": seeds("none", 0.1, 0.2, 0.15, 0.12),
        "dynamic_sft": seeds("dynamic_sft", 0.6, 0.7, 0.62, 0.66),
    }
    text = "\n".join(write_verdict(arms, [frozenset(("none", "dynamic_sft"))]).sentences)
    assert "above" not in text and "p =" not in text
    assert (
        "Not compared, since they differ in more than the constraint: dynamic (sft) and none."
    ) in text


def test_a_validation_is_given_with_its_standard_error_and_the_spread_before_training() -> None:
    known = {"validation_step": 8, "validation_error": 0.11}
    text = verdict(
        summary("none", 0.1, validation_start=0.65, validation_end=0.3, **known),
        summary("dynamic_sft", 0.1, validation_start=0.26, validation_end=0.4, **known),
    )
    assert "at step 8 (± at most one standard error of a run): none 0.30 ± 0.11" in text
    assert "before training it lay between 0.26 and 0.65." in text


def test_with_four_runs_a_validation_has_the_standard_error_over_them() -> None:
    known = {"validation_step": 8, "validation_error": 0.01}
    ends = (0.0, 0.1, 0.2, 0.3)
    text = verdict(*(summary("none", 0.1, validation_end=end, **known) for end in ends))
    # Variance 0.05 / 3; its root over 2 is 0.0645.
    assert "at step 8 (± one standard error over the runs): none 0.15 ± 0.06." in text


def test_the_answer_is_three_sentences() -> None:
    item = summary("none", 0.1, validation_end=0.3, validation_step=3)
    assert len(write_verdict({"none": [item]}).answer) == 3


def test_runs_of_unequal_length_are_compared_where_both_have_steps(tmp_path: Path) -> None:
    """The long run falls after step 4, where the short one ended."""
    long, short = ([{"critic/score/mean": value} for value in values]
                   for values in ((0.5,) * 4 + (-1.0,) * 4, (0.4,) * 4))  # fmt: skip
    runs = [
        logged_run(tmp_path / "a", *long, arm="none", total_steps=8),
        logged_run(tmp_path / "b", *short, arm="dynamic_sft", total_steps=8),
    ]
    summaries = summarise(runs)
    assert [summaries[arm][0].reward_end for arm in ("none", "dynamic_sft")] == [0.5, 0.4]
    text = "\n".join(write_verdict(summaries).sentences)
    assert "at step 4: none 0.50, dynamic (sft) 0.40." in text
    assert "what none did after them is in the curves alone" in text


def test_a_validation_is_compared_at_the_last_step_that_all_runs_have(tmp_path: Path) -> None:
    name = "val-core/x/acc/mean@1"
    first = [{"critic/score/mean": 0.0, name: value} for value in (0.1, 0.2, 0.3)]
    second = [{"critic/score/mean": 0.0, name: 0.6}, {"critic/score/mean": 0.0}]
    runs = [
        logged_run(tmp_path / "a", *first, arm="none"),
        logged_run(tmp_path / "b", *second, arm="dynamic_sft"),
    ]
    configured = [replace(run, configuration={"data.val_max_samples": "24"}) for run in runs]
    summaries = summarise(configured)
    item = summaries["none"][0]
    assert (item.validation_step, item.validation_end) == (1, 0.1)
    assert item.validation_error == pytest.approx((0.1 * 0.9 / 24) ** 0.5)


def test_arms_of_different_settings_are_not_compared() -> None:
    item = summary("dynamic_sft", 0.9)
    arms = {"sane/none": [summary("none", 0.1)], "stress/dynamic_sft": [item]}
    text = "\n".join(write_verdict(arms).sentences)
    assert "No arm here can be compared with a baseline" in text


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
    assert "at step 5: " in printed
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

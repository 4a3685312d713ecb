"""Run folders in every state are read as far as they go, and what was worked around is reported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.analysis.metrics_file import name_steps
from recipe.analysis.records import Finding, in_lines
from recipe.analysis.runs import choose_metric, group_by_arm, load_run, load_runs

MakeRun = Callable[..., Path]
MakeEpisode = Callable[..., dict[str, Any]]


def write_lines(path: Path, *records: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def step(number: int, **data: float | None) -> dict[str, Any]:
    return {"step": number, "data": data}


def messages(path: Path) -> str:
    return "\n".join(map(str, load_runs([path]).findings))


def test_a_whole_run_is_read_without_findings(new_run: MakeRun) -> None:
    run = load_run(new_run("dynamic_sft", seed=3, steps=8, total=8))
    assert (run.arm, run.seed, run.setting, run.total_steps) == ("dynamic_sft", 3, "stress", 8)
    assert run.steps == (1, 2, 3, 4, 5, 6, 7, 8)
    assert len(run.episodes) == 32
    assert run.findings == ()


def test_the_last_writing_of_a_repeated_step_wins(tmp_path: Path) -> None:
    lines = [step(1, a=1.0), step(2, a=2.0), step(3, a=3.0), step(2, a=20.0), step(3, a=30.0)]
    write_lines(tmp_path / "metrics.jsonl", *lines)
    run = load_run(tmp_path)
    assert run.metrics["a"].steps.tolist() == [1, 2, 3]
    assert run.metrics["a"].values.tolist() == [1.0, 20.0, 30.0]
    assert "steps 2-3 repeated after a resume" in messages(tmp_path)


def test_the_validation_of_a_resumed_run_does_not_replace_its_step(tmp_path: Path) -> None:
    lines = [step(1, a=1.0), step(2, a=2.0), step(2, **{"val-core/x": 0.5}), step(3, a=3.0)]
    write_lines(tmp_path / "metrics.jsonl", *lines)
    run = load_run(tmp_path)
    assert run.metrics["a"].values.tolist() == [1.0, 2.0, 3.0]
    assert run.metrics["val-core/x"].steps.tolist() == [2]
    assert "repeated" not in messages(tmp_path)


def test_a_metric_that_only_the_void_writing_had_is_gone(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", step(1, a=1.0, b=5.0), step(1, a=2.0))
    assert set(load_run(tmp_path).metrics) == {"a"}


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_lines(path, step(1, a=1.0), step(2, a=2.0))
    path.write_bytes(path.read_bytes() + b'{"step": 3, "data": {"a": 3.')
    assert load_run(tmp_path).steps == (1, 2)
    assert "line 3: torn last line" in messages(tmp_path)


def test_a_whole_line_without_its_newline_is_not_torn(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {"a": 1.0}}')
    assert load_run(tmp_path).steps == (1,)
    assert "torn" not in messages(tmp_path)


def test_a_record_written_onto_a_torn_line_after_a_resume_is_used(tmp_path: Path) -> None:
    glued = b'{"step": 2, "da{"step": 2, "data": {"a": 7.0}}\n'
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "data": {"a": 1.0}}\n' + glued)
    assert load_run(tmp_path).metrics["a"].values.tolist() == [1.0, 7.0]
    assert "line 2: torn line with a whole record after it" in messages(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [b"\xff\xfe\n", b"[1]\n", b"{}\n", b'{"step": "1", "data": {}}\n', b"[" * 100_000 + b"\n"],
    ids=["not UTF-8", "a list", "empty", "step is text", "absurd nesting"],
)
def test_a_bad_line_is_left_out_and_named(tmp_path: Path, bad: bytes) -> None:
    good = b'{"step": 1, "data": {"a": 1.0}}\n'
    (tmp_path / "metrics.jsonl").write_bytes(bad + good)
    assert load_run(tmp_path).steps == (1,)
    assert "line 1:" in messages(tmp_path)


def test_many_bad_lines_are_one_finding(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("nonsense\n" * 9 + '{"step": 1, "data": {}}\n')
    assert "lines 1, 2, 3, 4, 5 and 4 more: not a JSON object" in messages(tmp_path)


def test_values_that_are_not_finite_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "data": {"a": NaN}}\n{"step": 2, "data": {"a": null}}\n'
        '{"step": 3, "data": {"a": 3, "note": "text is no metric"}}\n'
    )
    run = load_run(tmp_path)
    assert run.metrics["a"].steps.tolist() == [3]
    assert set(run.metrics) == {"a"}
    assert "a is not a finite number at steps 1-2" in messages(tmp_path)


def test_a_gap_in_the_steps_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", step(1, a=1), step(2, a=1), step(5, a=1))
    assert "steps 3-4 absent" in messages(tmp_path)


def test_missing_files_are_findings(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    run = load_run(tmp_path)
    assert (run.steps, dict(run.metrics), run.episodes) == ((), {}, ())
    found = messages(tmp_path)
    assert "run.json: not a JSON object" in found
    assert "metrics.jsonl: missing" in found
    assert "episodes.jsonl: missing" in found


def test_without_run_json_the_layout_names_the_run(new_run: MakeRun) -> None:
    folder = new_run("static_kl", seed=4)
    (folder / "run.json").unlink()
    run = load_run(folder)
    assert (run.arm, run.setting, run.seed) == ("static_kl", "stress", 4)
    assert "run.json: missing" in messages(folder)


def test_an_unfinished_run_says_how_far_it_got(new_run: MakeRun) -> None:
    assert "has reached step 7 of 16" in messages(new_run(steps=7, total=16))


def test_a_folder_of_runs_gives_all_of_them_once(new_run: MakeRun) -> None:
    first, second = new_run("none"), new_run("static_kl")
    found = load_runs([first.parents[1], second, first.parent / "absent"])
    assert {run.path.name + run.arm for run in found.runs} == {"seed0none", "seed0static_kl"}
    text = "\n".join(map(str, found.findings))
    assert "given more than once" in text
    assert "does not exist" in text


def test_nothing_is_looked_for_inside_a_run(new_run: MakeRun) -> None:
    folder = new_run()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "run.json").write_text("{}")
    assert len(load_runs([folder]).runs) == 1


def test_runs_that_are_hard_to_compare_are_named(new_run: MakeRun) -> None:
    first, second = new_run("none", steps=16), new_run("static_kl", steps=5)
    info = json.loads((second / "run.json").read_text())
    (second / "run.json").write_text(
        json.dumps(info | {"commit": "fedcba9", "arm": "none", "versions": {"verl": "0.9.2"}})
    )
    found = "\n".join(map(str, load_runs([first, second]).findings))
    assert "same setting, arm and seed" in found
    assert "all runs: they differ in commit: 0123abc, fedcba9" in found
    assert "all runs: they differ in version of verl: 0.9.1, 0.9.2" in found
    assert "all runs: they end at different steps (5, 16)" in found


def test_arms_are_ordered_baselines_first_and_unknown_ones_last(new_run: MakeRun) -> None:
    arms = ("dynamic_sft", "static_kl", "none")
    runs = [load_run(new_run(arm)) for arm in arms]
    assert list(group_by_arm(runs)) == ["none", "static_kl", "dynamic_sft"]


def test_one_metric_name_is_chosen_for_all_runs(new_run: MakeRun) -> None:
    runs = [load_run(new_run(arm)) for arm in ("none", "static_kl")]
    assert choose_metric(runs, ("absent", "critic/*/mean")) == "critic/score/mean"
    assert choose_metric(runs, ("absent",)) is None


def test_episodes_of_steps_repeated_after_a_resume_are_void(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    before = [new_episode(1), new_episode(2, accepted=False), new_episode(3, accepted=False)]
    after = [new_episode(2), new_episode(2), new_episode(4)]
    write_lines(tmp_path / "episodes.jsonl", *before, *after)
    run = load_run(tmp_path)
    assert [item.step for item in run.episodes] == [1, 2, 2, 4]
    assert all(item.accepted for item in run.episodes)
    assert "2 episodes of steps that a resume repeated" in messages(tmp_path)


def test_a_digest_leads_back_to_its_episode(tmp_path: Path, new_episode: MakeEpisode) -> None:
    write_lines(tmp_path / "episodes.jsonl", new_episode(1), new_episode(2, problem_id="x→y"))
    run = load_run(tmp_path)
    assert run.read_episode(run.episodes[1]).problem_id == "x→y"


def test_ce_is_summed_apart_for_copied_and_edited_tokens(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    tokens = ["a", "b", "c", "d"]
    record = new_episode(refined_tokens=tokens, copied=[1, 0, 0, 1], ce=[0.5, 2.0, 4.0, 0.25])
    write_lines(tmp_path / "episodes.jsonl", record)
    (item,) = load_run(tmp_path).episodes
    assert (item.ce_copied_sum, item.ce_copied_count) == (0.75, 2)
    assert (item.ce_edited_sum, item.ce_edited_count) == (6.0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ce": [0.1]}, "ce is not one finite number per refined token"),
        ({"ce": [None] * 77}, "ce is not one finite number per refined token"),
        ({"copied": [1]}, "copied does not fit the refined tokens"),
    ],
)
def test_ce_that_does_not_fit_costs_only_the_ce(
    tmp_path: Path, new_episode: MakeEpisode, change: dict[str, Any], message: str
) -> None:
    write_lines(tmp_path / "episodes.jsonl", new_episode(**change))
    (item,) = load_run(tmp_path).episodes
    assert item.accepted
    assert item.ce_copied_count == item.ce_edited_count == 0
    assert f"line 1: {message}" in messages(tmp_path)


def test_an_episode_without_its_flags_is_left_out_and_named(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    write_lines(tmp_path / "episodes.jsonl", new_episode(accepted=None), new_episode())
    assert len(load_run(tmp_path).episodes) == 1
    assert "line 1: episode without step, accepted and verbatim" in messages(tmp_path)


def test_episodes_are_missing_only_from_a_run_that_asked_a_refiner(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", step(1, a=1.0))
    assert "episodes.jsonl" not in messages(tmp_path)
    write_lines(tmp_path / "metrics.jsonl", step(1, **{"refiner/failed_total": 0.0}))
    assert "episodes.jsonl: missing" in messages(tmp_path)


def test_what_many_runs_have_in_common_is_said_once() -> None:
    paths = [Path(name) for name in "abcde"]
    findings = [Finding(path, "broken") for path in paths] + [Finding(None, "odd")]
    assert in_lines(findings) == ["a, b, c and 2 more: broken", "all runs: odd"]


@pytest.mark.parametrize(
    ("steps", "words"), [([4], "step 4"), ([3, 1, 2], "steps 1-3"), ([1, 2, 5], "steps 1-2, 5")]
)
def test_steps_are_named_as_ranges(steps: list[int], words: str) -> None:
    assert name_steps(steps) == words


def test_metrics_that_are_not_finite_are_one_remark_however_many(tmp_path: Path) -> None:
    """A diverged run has hundreds of them."""
    data = {"critic/score/mean": 0.1} | {f"actor/m{i:03}": float("nan") for i in range(200)}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 3, "data": data}) + "\n")
    (finding,) = [f for f in load_run(tmp_path).findings if "finite" in f.message]
    assert finding.message == (
        "200 metrics are not finite numbers at some of step 3; left out there: "
        "actor/m000, actor/m001, actor/m002 and 197 more"
    )

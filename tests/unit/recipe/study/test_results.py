"""What the runs of a study say, by hand; and the same from a pack of them."""

import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import recipe
from recipe.analysis.metrics_file import Series
from recipe.analysis.runs import Run, RunSet
from recipe.study.__main__ import main
from recipe.study.pack import EPISODES_A_RUN, pack_runs, sampled, unpacked, verdicts_of
from recipe.study.plan import Study, study_of
from recipe.study.results import Results, compare_all, read_results
from recipe.study.tables import comparison_table, outcome_table, value_rows, verdict_table

WriteRun = Callable[..., Path]


@pytest.fixture
def out(tmp_path: Path, write_run: WriteRun) -> Path:
    """A study's folder with four finished runs and one that stopped after its first step."""
    runs = tmp_path / "runs"
    write_run(runs, "none", 0, 0.1)
    write_run(runs, "none", 1, 0.2, verdicts=("accepted", "accepted", "compile_error", "wrong"))
    write_run(runs, "dynamic_sft", 1, 0.5, verdicts=("accepted", "accepted", "accepted", "wrong"))
    write_run(runs, "dynamic_sft", 2, 0.4, steps=1)
    return tmp_path


@pytest.fixture
def results(study: Study, out: Path) -> Results:
    return read_results(study, out / "runs")


def test_only_finished_runs_count_and_the_others_are_named(results: Results) -> None:
    assert results.outcome("none") == {0: 0.1, 1: 0.2}
    assert results.outcome("dynamic_sft") == {1: 0.5}
    assert [(run.arm, run.seed) for run in results.unfinished] == [("dynamic_sft", 2)]


def test_arms_are_compared_over_common_seeds(results: Results) -> None:
    (compared,) = compare_all(results)
    assert compared.result is not None
    assert compared.result.seeds == (1,)
    assert compared.result.mean == pytest.approx(0.3)
    assert not compared.claimed


def test_a_family_shares_its_level(study: Study, tmp_path: Path, write_run: WriteRun) -> None:
    seeds = list(range(8))
    arms = {arm: {"seeds": seeds} for arm in ("none", "clear", "other", "third", "fourth")}
    pairs = [["clear", "none"], ["other", "none"], ["third", "none"], ["fourth", "none"]]
    changed = study.model_dump() | {"arms": arms}
    one = study_of(changed | {"families": {"alone": [pairs[1]], "all": pairs}}, "x")
    for seed in seeds:
        write_run(tmp_path / "runs", "none", seed, 0.0)
        write_run(tmp_path / "runs", "clear", seed, 0.4 + seed / 100)
        # All but one agree: p = 8 / 256, which 0.05 / 3 does not let through.
        write_run(tmp_path / "runs", "other", seed, -0.12 if seed == 0 else 0.1 + seed / 100)
        for noise in ("third", "fourth"):
            write_run(tmp_path / "runs", noise, seed, (-1) ** seed * 0.1)
    found = compare_all(read_results(one, tmp_path / "runs"))
    claimed = {(compared.family, compared.first): compared.claimed for compared in found}
    assert claimed["alone", "other"]
    assert claimed["all", "clear"]
    assert not claimed["all", "other"]


def family_of_noise(rng: np.random.Generator, study: Study) -> Results:
    """A study's results in which the baseline and three arms, some runs of which collapse, are all
    drawn alike.
    """
    name, none = "val-core/x/reward/mean@1", ()
    runs = {}
    for arm in study.arms:
        ends = np.where(rng.random(8) < 0.5, -0.7, 0.4) + rng.normal(0, 0.02, 8)
        runs[arm] = tuple(
            Run(
                Path(arm), arm, seed, "", 2, {}, (2,), {name: Series(np.array([2]), ends[[seed]])},
                none, none,
            )
            for seed in range(8)
        )  # fmt: skip
    return Results(study, Path(), RunSet((), ()), runs, (), {})


def test_of_studies_without_an_effect_at_most_five_percent_show_one_in_a_family(
    study: Study,
) -> None:
    arms = {arm: {"seeds": list(range(8))} for arm in ("none", "first", "second", "third")}
    pairs = [[arm, "none"] for arm in list(arms)[1:]]
    changed = study_of(study.model_dump() | {"arms": arms, "families": {"all": pairs}}, "x")
    rng, rounds = np.random.default_rng(17), 400
    wrong = sum(
        any(one.claimed for one in compare_all(family_of_noise(rng, changed)))
        for _ in range(rounds)
    )
    assert 0 < wrong / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


def test_the_tables_hold_mean_and_standard_error_by_step(results: Results) -> None:
    table = outcome_table(results)
    assert table.header == ("arm", "runs", "step 0", "step 1", "step 2")
    assert table.rows[0] == ("none", "2", "0.50 ± 0.00", "0.00 ± 0.00", "0.15 ± 0.05")
    assert table.rows[1] == ("dynamic (sft)", "1", "0.50", "0.00", "0.50")
    line = comparison_table(compare_all(results), 0.05).rows[0]
    assert line == ("primary", "dynamic (sft) − none", "1", "+0.30", "-", "-", "-")


def test_verdicts_are_shares_of_the_runs_that_have_them(results: Results) -> None:
    table = verdict_table(results)
    assert table is not None
    assert table.header == ("arm", "accepted", "compile error", "wrong")
    assert table.rows == (
        ("none", "50%", "25%", "25%"),
        ("dynamic (sft)", "75%", "0%", "25%"),
    )


def test_every_value_is_listed_unrounded(results: Results) -> None:
    rows = value_rows(results)
    assert ("none", 1, 2, "outcome", "val-core/micro_apps/reward/mean@1", 0.2) in rows
    assert ("none", 0, 1, "Entropy", "monitor/entropy", 2.0) in rows


def test_a_pack_gives_the_same_results_and_the_same_bytes(
    study: Study, out: Path, results: Results, tmp_path: Path
) -> None:
    first = pack_runs(study, out, tmp_path / "first.tar.xz")
    again = pack_runs(study, out, tmp_path / "again.tar.xz")
    assert first.read_bytes() == again.read_bytes()
    with unpacked(first) as runs:
        packed = read_results(study, runs)
        assert value_rows(packed) == value_rows(results)
        assert verdict_table(packed) == verdict_table(results)


def test_a_pack_holds_what_has_ended_or_failed_and_not_what_is_under_way(
    study: Study, out: Path, tmp_path: Path
) -> None:
    def packed() -> set[str]:
        with tarfile.open(pack_runs(study, out, tmp_path / "runs.tar.xz")) as archive:
            return {str(Path(name).parent) for name in archive.getnames()}

    ended = {"none/seed0", "none/seed1", "dynamic_sft/seed1"}
    assert packed() == ended
    (out / "runs" / "dynamic_sft" / "seed2" / "failures.jsonl").write_text('{"why": "x"}\n')
    assert packed() == ended | {"dynamic_sft/seed2"}


def test_a_pack_names_no_folder_of_this_machine_and_a_sample_of_the_episodes(
    study: Study, out: Path, tmp_path: Path
) -> None:
    (out / "runs" / "none" / "seed0" / "config.yaml").write_text(
        f"a: {out}/x\nb: {Path(recipe.__file__).parent}\n"
    )
    with tarfile.open(pack_runs(study, out, tmp_path / "runs.tar.xz")) as archive:
        texts = {
            member.name: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
        }
    assert texts["none/seed0/config.yaml"] == "a: STUDY/x\nb: CHECKOUT/recipe\n"
    assert len(texts["none/seed0/episodes.jsonl"].splitlines()) == EPISODES_A_RUN
    assert not any(str(tmp_path) in text for text in texts.values())


def test_a_sample_keeps_the_order_and_does_not_change() -> None:
    lines = [json.dumps({"step": step}) for step in range(100)]
    chosen = sampled(lines)
    assert chosen == sampled(lines)
    assert [line.strip() for line in chosen] == [x for x in lines if f"{x}\n" in chosen]


def test_a_run_without_validation_dumps_has_no_verdicts(out: Path) -> None:
    assert verdicts_of(out / "runs" / "none" / "seed0") == {}


def test_the_command_reports_on_a_pack(
    study: Study, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(study.model_dump(mode="json", exclude={"limit_s"})))
    packed = pack_runs(study, out, tmp_path / "small.tar.xz")
    where = tmp_path / "report"
    assert main([str(file), "--packed", str(packed), "--out", str(where)]) == 0
    assert "dynamic (sft) − none" in capsys.readouterr().out
    names = {path.name for path in where.iterdir()}
    assert {"results.md", "curves_primary.png", "differences.png", "differences-dark.png"} <= names
    assert (where / "runs_report" / "report.html").exists()
    assert "0.15 ± 0.05" in (where / "results.md").read_text()


def test_an_unknown_arm_on_the_command_line_is_named(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(study.model_dump(mode="json", exclude={"limit_s"})))
    assert main([str(file), "--arm", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err

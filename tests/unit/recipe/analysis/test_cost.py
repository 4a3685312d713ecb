"""Time shares and overhead, against sums done by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recipe.analysis.cost import REST, cost_sheet, seconds_by_part
from recipe.analysis.metrics_file import Series
from recipe.analysis.overhead import cost_table, policy_tokens
from recipe.analysis.runs import Run


def timed(arm: str, timers: dict[str, tuple[float, ...]], refines: bool = False) -> Run:
    metrics = {
        f"timing_s/{name}": Series(np.arange(1, len(values) + 1), np.array(values))
        for name, values in timers.items()
    }
    if refines:
        metrics["refiner/verbatim_total"] = Series(np.array([1]), np.array([0.0]))
    return Run(Path(arm), arm, 0, "", None, {}, (1, 2), metrics, (), ())


def test_parts_add_up_to_the_step_and_nested_timers_count_once() -> None:
    # gen holds refine_wait, adv holds constraint_ce; the checkpoint of step 2 has no part.
    run = timed(
        "dynamic_sft",
        {
            "step": (10.0, 14.0),
            "gen": (5.0, 7.0),
            "refine_wait": (1.0, 3.0),
            "adv": (2.0, 2.0),
            "constraint_ce": (1.0, 1.0),
            "update_actor": (2.0, 2.0),
            "testing": (0.0, 99.0),
        },
    )
    seconds = {title: value for title, value in seconds_by_part(run).items() if value}
    assert seconds == {
        "rollouts, and refining meanwhile": 4.0,
        "waiting for the last refinements": 2.0,
        "rewards and advantages": 1.0,
        "CE on a′": 1.0,
        "update of the actor": 2.0,
        REST: 2.0,
    }
    rows = {row[2]: row[3:] for row in cost_sheet([run]).rows}
    assert rows["CE on a′"] == (1.0, pytest.approx(1 / 12))


def test_a_timer_that_is_absent_at_a_step_is_zero_there() -> None:
    run = timed("none", {"step": (4.0, 4.0), "update_critic": (2.0,)})
    assert seconds_by_part(run)["update of the critic"] == 1.0


def test_a_run_without_timers_costs_nothing_to_report() -> None:
    sheet = cost_sheet([timed("none", {})])
    assert sheet.plots == () and sheet.rows == ()
    assert any("Not logged: Time of a step" in note for note in sheet.notes)


def test_overhead_is_over_the_arm_that_asks_no_refiner_without_the_first_step() -> None:
    runs = [
        timed("none", {"step": (99.0, 4.0, 4.0)}),
        timed("dynamic_sft", {"step": (99.0, 5.0, 5.0)}, refines=True),
    ]
    table, words = cost_table(runs)
    assert "asked no refiner" in words
    assert table.header[-2:] == ("median step (s)", "over none")
    ends = [(row[0], *row[-2:]) for row in table.rows]
    assert ends == [("none", "4.00", "1.00"), ("dynamic (sft)", "5.00", "1.25")]


def test_where_every_arm_asks_the_refiner_no_overhead_is_claimed() -> None:
    runs = [timed("none", {"step": (4.0, 4.0)}, refines=True)]
    table, words = cost_table(runs)
    assert table.header[-1] == "median step (s)" and "refiner.observe" in words


def test_tokens_and_gpu_hours_are_those_of_the_log() -> None:
    run = timed("dynamic_sft", {"step": (1800.0, 1800.0)}, refines=True)
    logged = {
        "perf/total_num_tokens": (900.0, 1100.0),
        "response_length/mean": (60.0, 80.0),
        "prompt_length/mean": (30.0, 30.0),
        "refiner/generated_tokens_total": (10.0, 30.0),
    }
    series = {name: Series(np.array([1, 2]), np.array(v)) for name, v in logged.items()}
    keys = {
        **{"trainer.n_gpus_per_node": "8", "trainer.nnodes": "2", "refiner.placement": "pool"},
        **{"refiner.pool.n_gpus_per_node": "4", "refiner.pool.nnodes": "1"},
    }
    run = replace(run, metrics={**run.metrics, **series}, configuration=keys)
    assert policy_tokens(run) == pytest.approx(600 + 800)
    ((_, policy, decoded, scored, hours, gpu_hours, _),) = cost_table([run])[0].rows
    assert (policy, decoded, scored, hours, gpu_hours) == ("1,400", "40", "-", "1.00", "20.00")


def test_a_part_that_was_not_timed_is_absent_and_not_zero() -> None:
    rows = {row[2] for row in cost_sheet([
        timed("dynamic_sft", {"step": (4.0,), "update_actor": (2.0,)}),
        timed("dynamic_advantage", {"step": (4.0,), "constraint_ce": (1.0,), "adv": (2.0,)}),
    ]).rows if row[0] == "dynamic_sft"}  # fmt: skip
    assert "CE on a′" not in rows and "update of the actor" in rows

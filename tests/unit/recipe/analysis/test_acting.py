"""Which constraint acts in a run, and with which weight."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipe.analysis.acting import learns_from_refinements, reduction_of, weight_of
from recipe.analysis.derived import with_derived
from recipe.analysis.metrics_file import Series
from recipe.analysis.observatory import policy_sheet, refiner_sheet
from recipe.analysis.overview import runs_table
from recipe.analysis.runs import Run


def run_of(arm: str, info: dict[str, Any], metrics: Any = None, **configuration: str) -> Run:
    keys = {f"constraint.{key}": value for key, value in configuration.items()}
    series = {
        name: Series(np.arange(1, len(values) + 1), np.array(values))
        for name, values in (metrics or {}).items()
    }
    return Run(Path(arm), arm, 0, "", None, info, (1, 2), series, (), (), keys)


@pytest.mark.parametrize(
    ("run", "weight"),
    [
        (run_of("none", {"kind": "none", "lambda": 1.0}), ""),
        (run_of("x", {"kind": "dynamic", "lambda": 0.5}), "λ = 0.5"),
        (
            run_of("y", {"kind": "static_kl", "lambda": 1.0}, **{"static_kl.coef": "0.05"}),
            "KL coefficient 0.05",
        ),
        (
            run_of("c", {"kind": "chord"}, **{"chord.peak": "0.9", "chord.valley": "0.05"}),
            "µ 0.9 to 0.05",
        ),
        (run_of("dynamic_sft", {}, **{"lambda": "1.0"}), "λ = 1"),
        (run_of("z", {"kind": "distill", "lambda": 2.0}), "λ = 2"),
    ],
)
def test_a_weight_is_that_of_the_constraint_which_acts(run: Run, weight: str) -> None:
    assert weight_of(run) == weight
    table = runs_table([run])
    assert table.rows[0][table.header.index("weight")] == (weight or "-")


def test_without_a_record_the_arms_name_says_what_acts() -> None:
    assert learns_from_refinements(run_of("dynamic_sft", {}))
    assert learns_from_refinements(run_of("distill", {}))
    assert not learns_from_refinements(run_of("none", {}))


def test_penalties_that_are_sums_and_means_have_axes_of_their_own() -> None:
    logged = {"constraint/penalty_mean": (30.0, 20.0)}
    means = {"constraint/penalty_mean": (0.3, 0.2)}
    runs = with_derived(
        [
            run_of("dynamic_advantage", {"kind": "dynamic"}, logged, inject="advantage"),
            run_of("dynamic_sft", {"kind": "dynamic"}, means, inject="sft", reduce="null"),
        ]
    )
    assert [reduction_of(run) for run in runs] == ["sum", "mean"]
    rows = [row for row in policy_sheet(runs).rows if str(row[0]).startswith("Penalty")]
    assert {(row[0], row[2]) for row in rows} == {
        ("Penalty, summed over tokens", "dynamic_advantage"),
        ("Penalty, mean over tokens", "dynamic_sft"),
    }


def test_a_panel_that_is_zero_throughout_is_named_and_not_drawn() -> None:
    logged = {"refiner/failed_total": (0.0, 0.0), "refiner/queue_depth_max": (0.0, 2.0)}
    sheet = refiner_sheet([run_of("dynamic_sft", {}, logged)])
    assert [plot.title for plot in sheet.plots] == ["Queue of the refiner"]
    assert "Zero at all steps: Failed refinements" in sheet.notes

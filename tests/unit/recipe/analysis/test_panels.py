"""Seeds become a line and a band by stated rules; every expectation is worked out by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recipe.analysis.curves import describe_seeds, draw_curves
from recipe.analysis.metrics_file import Series
from recipe.analysis.panels import (
    TRAINING_PANELS,
    Panel,
    aggregate,
    panel_curves,
    smooth,
    smoothing_window,
)
from recipe.analysis.runs import group_by_arm, load_run
from recipe.analysis.style import DARK, LIGHT, arm_styles

MakeRun = Callable[..., Path]


def series(*pairs: tuple[int, float]) -> Series:
    return Series(np.array([step for step, _ in pairs]), np.array([value for _, value in pairs]))


def test_one_seed_is_its_own_line_with_an_empty_band() -> None:
    curve = aggregate("none", "m", [series((1, 2.0), (2, 4.0))])
    assert curve.mean.tolist() == curve.low.tolist() == curve.high.tolist() == [2.0, 4.0]


def test_up_to_three_seeds_the_band_is_the_range() -> None:
    seeds = [series((1, 0.0)), series((1, 1.0)), series((1, 5.0))]
    curve = aggregate("none", "m", seeds)
    assert (curve.mean[0], curve.low[0], curve.high[0], curve.counts[0]) == (2.0, 0.0, 5.0, 3)


def test_more_seeds_get_one_standard_error_either_side() -> None:
    # Values 1, 3, 5, 7: mean 4, squares 9 + 1 + 1 + 9 = 20, variance 20 / 3, error sqrt(20 / 12).
    curve = aggregate("none", "m", [series((1, value)) for value in (1.0, 3.0, 5.0, 7.0)])
    assert curve.mean[0] == 4.0
    assert curve.high[0] - 4.0 == pytest.approx((20 / 12) ** 0.5)
    assert 4.0 - curve.low[0] == pytest.approx((20 / 12) ** 0.5)


def test_a_step_is_averaged_over_the_seeds_that_have_it() -> None:
    curve = aggregate("none", "m", [series((1, 1.0), (2, 2.0), (4, 8.0)), series((1, 3.0))])
    assert curve.steps.tolist() == [1, 2, 4]
    assert curve.mean.tolist() == [2.0, 2.0, 8.0]
    assert curve.counts.tolist() == [2, 1, 1]


def test_only_long_curves_are_smoothed_over_an_odd_window() -> None:
    assert [smoothing_window(steps) for steps in (1, 60, 61, 150, 430)] == [1, 1, 3, 7, 21]
    short = aggregate("none", "m", [series((1, 1.0), (2, 5.0))])
    assert smooth(short).mean.tolist() == [1.0, 5.0]


def test_a_smoothed_line_is_the_mean_of_its_window_and_shorter_at_the_ends() -> None:
    # 61 steps, window 3: all 0 but 6 at the second step. Ends average two values, others three.
    values = [(step, 6.0 if step == 2 else 0.0) for step in range(1, 62)]
    curve = smooth(aggregate("none", "m", [series(*values)]))
    assert curve.mean[:5].tolist() == [3.0, 2.0, 2.0, 0.0, 0.0]
    assert curve.low[:5].tolist() == [3.0, 2.0, 2.0, 0.0, 0.0]


def test_the_order_of_seeds_changes_nothing() -> None:
    seeds = [series((1, 1.0), (2, 2.0)), series((1, 4.0)), series((2, 9.0))]
    first, second = aggregate("a", "m", seeds), aggregate("a", "m", seeds[::-1])
    assert first.mean.tolist() == second.mean.tolist()
    assert first.high.tolist() == second.high.tolist()


def test_an_arm_without_the_metric_has_no_curve_and_the_panel_names_it(new_run: MakeRun) -> None:
    without = new_run("none", steps=2)
    text = (without / "metrics.jsonl").read_text()
    (without / "metrics.jsonl").write_text(text.replace("constraint/ce_mean", "other"))
    runs = [load_run(without), load_run(new_run("dynamic_sft", steps=2))]
    panel = Panel("CE", "nats", ("constraint/ce_mean",))
    curves = panel_curves(group_by_arm(runs), panel)
    assert [curve.arm for curve in curves] == ["dynamic_sft"]
    (axes, _) = draw_curves(runs, LIGHT, [panel]).axes
    assert "not logged: none" in [text.get_text() for text in axes.texts]


def test_a_metric_that_no_arm_has_leaves_a_panel_that_says_so(new_run: MakeRun) -> None:
    (axes, _) = draw_curves([load_run(new_run())], LIGHT, [Panel("X", "nats", ("no/such",))]).axes
    (text,) = axes.texts
    assert text.get_text() == "not logged\nin these runs"
    assert text.get_transform() == axes.transAxes


def test_every_panel_has_a_title_and_labelled_axes(new_run: MakeRun) -> None:
    figure = draw_curves([load_run(new_run())], DARK)
    panels = figure.axes[:-1]
    assert [axes.get_title(loc="left") for axes in panels] == [p.title for p in TRAINING_PANELS]
    assert all(axes.get_xlabel() == "training step" and axes.get_ylabel() for axes in panels)
    assert sum(axes.get_legend() is not None for axes in figure.axes) == 1


def test_runs_without_any_step_still_give_a_picture(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"arm": "none"}')
    assert len(draw_curves([load_run(tmp_path)], LIGHT).axes) == len(TRAINING_PANELS) + 1


def test_a_curve_that_spans_orders_of_magnitude_gets_a_log_scale(new_run: MakeRun) -> None:
    runs = [load_run(new_run(arm)) for arm in ("none", "dynamic_sft")]
    kl = next(panel for panel in TRAINING_PANELS if panel.may_be_log)
    assert draw_curves(runs, LIGHT, [kl]).axes[0].get_yscale() == "symlog"
    assert draw_curves(runs[1:], LIGHT, [kl]).axes[0].get_yscale() == "linear"


def test_known_arms_keep_their_colour_whatever_else_is_drawn() -> None:
    alone, together = arm_styles(["none"], LIGHT), arm_styles(["x", "dynamic_sft", "none"], LIGHT)
    assert alone["none"] == together["none"]
    assert len({style.colour for style in together.values()}) == 3


def test_no_two_known_arms_share_a_colour_or_a_marker() -> None:
    for theme in (LIGHT, DARK):
        styles = arm_styles(list(theme.arms), theme).values()
        assert len({style.colour for style in styles}) == len(theme.arms)
        assert len({style.marker for style in styles}) == len(theme.arms)


def test_no_two_of_many_other_arms_look_alike() -> None:
    styles = arm_styles([f"arm {number}" for number in range(30)], LIGHT).values()
    assert len({(style.colour, style.marker) for style in styles}) == 30


def test_the_picture_says_what_its_bands_are(new_run: MakeRun) -> None:
    one, two = load_run(new_run("none")), load_run(new_run("none", seed=1))
    other = load_run(new_run("static_kl"))
    assert describe_seeds({"none": [one]}) == "one run"
    assert "may be chance" in describe_seeds({"none": [one], "static_kl": [other]})
    assert describe_seeds({"none": [one, two]}) == "2 runs per arm;\nline: mean; band: min to max"
    assert "± standard error" in describe_seeds({"none": [one] * 4})

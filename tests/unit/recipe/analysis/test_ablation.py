"""Runs are an ablation only where one key differs and the rest agrees."""

from pathlib import Path
from typing import Any

import pytest

from recipe.analysis.ablation import absent_ablations, find_ablations, read_constraint
from recipe.analysis.runs import Run

CONFIG = """\
trainer:
  constraint: not this one
constraint:
  kind: dynamic
  filter: {filter}
  chord:
    peak: 0.9

refiner:
  observe: false
"""


def configured(folder: Path, arm: str = "a", filter: str = "better", **info: Any) -> Run:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(filter=filter))
    known = {"kind": "dynamic", "inject": "sft", "lambda": 1.0} | info
    return Run(folder, arm, 0, "", None, known, (), {}, (), ())


def test_runs_of_several_lambdas_are_grouped_ascending_with_the_unconstrained_first(
    tmp_path: Path,
) -> None:
    runs = [
        configured(tmp_path / "1", "a", "better", **{"lambda": 10}),
        configured(tmp_path / "2", "a", "better", **{"lambda": 0.5}),
        configured(tmp_path / "3", "a", "better", **{"lambda": 0.5}),
        configured(tmp_path / "4", arm="none", kind="none"),
    ]
    ((ablation,), findings) = find_ablations(runs)
    assert findings == () and ablation.key == "lambda"
    assert ablation.where == "inject: sft, filter: better"
    assert ablation.groups == {"none": runs[3:], "λ = 0.5": runs[1:3], "λ = 10": runs[:1]}
    assert [words for words in absent_ablations([ablation]) if "filter" in words]


def test_filters_are_read_from_the_configuration(tmp_path: Path) -> None:
    runs = [configured(tmp_path / name, filter=name) for name in ("off", "better")]
    ((ablation,), _) = find_ablations(runs)
    assert list(ablation.groups) == ["filter: better", "filter: off"]


@pytest.mark.parametrize(
    "other",
    [
        {"inject": "advantage", "lambda": 2.0},
        {"filter": "off", "lambda": 2.0},
        {"kind": "chord", "lambda": 2.0},
        {"lambda": None},
        {},
    ],
)
def test_runs_that_differ_in_more_or_in_nothing_are_none(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    runs = [configured(tmp_path / "1"), configured(tmp_path / "2", **other)]
    assert find_ablations(runs)[0] == ()
    assert len(absent_ablations(())) == 2


@pytest.mark.parametrize("text", ["", "constraint: [1\n", "constraint: 3\n", "constraint:\n- a\n"])
def test_a_broken_configuration_is_a_finding(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    content, (finding,) = read_constraint(tmp_path / "config.yaml")
    assert content == {} and "filter unknown" in finding.message

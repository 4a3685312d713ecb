"""DAPO-Math on each machine that fits, and how long it is expected to take there.

The models are folders with the real models' sizes and the tiny model's tokenizer.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from model_folders import SIZES, model_folder, sizes_of

from recipe.data.math_records import to_problem, to_row
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.hours import StepTime, run_hours, step_time
from recipe.online_refiner.preflight.report import preflight
from recipe.online_refiner.resolve.resolving import resolve

REPO_ROOT = Path(__file__).resolve().parents[4]
LONG_7B = ("gpu8x80_long", "nodes2x8x80_long")
LONG_32B = ("nodes2x8x80_long", "nodes4x8x80_long", "nodes16x8x80_long")
FITTING = [
    *(("dapo_math_7b", hardware, "fsdp2_long") for hardware in LONG_7B),
    *(("dapo_math_32b", hardware, "fsdp2_long") for hardware in LONG_32B),
    *(
        ("dynamic_dapo_math_7b", hardware, strategy)
        for hardware in LONG_7B
        for strategy in ("fsdp2_long", "megatron_long")
    ),
    *(
        ("dynamic_dapo_math_32b", hardware, strategy)
        for hardware in LONG_32B
        for strategy in ("fsdp2_long", "megatron_long_tp8")
    ),
]
"""Experiment, hardware and strategy."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, and a folder for each model: its sizes, without weights."""
    root = tmp_path_factory.mktemp("home")
    problem = to_problem({"problem": "What is 1 + 2?", "answer": 3}, 0, 100)
    row = to_row(problem, "math_dapo", "train", 0)
    pq.write_table(pa.Table.from_pylist([row] * 600), root / "rows.parquet")
    for name in SIZES:
        if "Coder" not in name and name.startswith("Qwen/"):
            model_folder(root / name, **sizes_of(name))
    return root


@pytest.fixture(scope="module")
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONFIG), version_base=None):
        yield


def planned(folder: Path, experiment: str, hardware: str, *overrides: str) -> RunPlan:
    groups = [f"experiment={experiment}", f"hardware={hardware}", *overrides]
    config = compose("online_refiner", groups)
    config.data.train_files = config.data.val_files = str(folder / "rows.parquet")
    config.actor_rollout_ref.model.path = str(folder / config.actor_rollout_ref.model.path)
    config.trainer.save_freq = -1
    return resolve(config)


@pytest.mark.usefixtures("_hydra")
@pytest.mark.parametrize(("experiment", "hardware", "strategy"), FITTING)
def test_it_passes_the_preflight_on_every_machine_that_fits(
    experiment: str, hardware: str, strategy: str, folder: Path
) -> None:
    plan = planned(folder, experiment, hardware, f"strategy={strategy}")
    report = preflight(plan)
    assert report.faults == ()
    assert plan.config.actor_rollout_ref.actor.strategy == strategy.split("_")[0]
    assert plan.limits.context_tokens < 20_480
    assert "half" not in report.text()  # of the refinements none is expected to be dropped
    assert "Time, estimated" in report.text()


@pytest.mark.usefixtures("_hydra")
def test_one_machine_is_too_small_for_32_billion_parameters(folder: Path) -> None:
    faults = preflight(planned(folder, "dynamic_dapo_math_32b", "gpu8x80_long")).faults
    assert any("gpu_memory_utilization" in fault for fault in faults)


P7 = 7_615_487_488
"""Parameters of the 7B, without biases."""
T7 = 512 * 16 * (2048 + 8192) // 2
"""Tokens of its step."""
A_GPU = 2039e9 * 60
"""Operations a second."""


@pytest.mark.usefixtures("_hydra")
def test_training_takes_the_passes_that_are_made(folder: Path) -> None:
    plan = planned(folder, "dapo_math_7b", "gpu8x80_long")
    found = step_time(plan)
    assert found is not None
    # Old log-probs 2, the update 8, and in every tenth step the reference's 2.
    assert found.training_s == pytest.approx((2 + 8 + 0.2) * P7 * T7 / (8 * A_GPU), rel=1e-3)
    assert found.refinements_s == 0
    assert run_hours(plan) == pytest.approx(200 * found.total_s / 3600)
    changes = ("actor_rollout_ref.actor.ppo_epochs=2", "monitor.kl_to_reference=false")
    more = step_time(planned(folder, "dapo_math_7b", "gpu8x80_long", *changes))
    assert more is not None
    assert more.training_s == pytest.approx(found.training_s * 18 / 10.2)
    assert more.rollouts_s == found.rollouts_s


@pytest.mark.usefixtures("_hydra")
def test_refinements_add_their_time_on_the_same_gpus_and_less_on_others(folder: Path) -> None:
    shared = step_time(planned(folder, "dynamic_dapo_math_7b", "nodes2x8x80_long"))
    apart = step_time(
        planned(folder, "dynamic_dapo_math_7b", "nodes2x8x80_long", "refiner.placement=pool",
                "refiner.pool.n_gpus_per_node=8", "refiner.pool.nnodes=2", "machine.nodes=4")
    )  # fmt: skip
    assert shared is not None and apart is not None
    assert shared.rollouts_s == apart.rollouts_s > 0
    assert apart.refinements_s == pytest.approx(shared.refinements_s - shared.rollouts_s)
    assert StepTime(1.0, 2.0, 3.0).total_s == 6.0


@pytest.mark.usefixtures("_hydra")
def test_the_time_is_unknown_without_a_gpu_or_a_number_of_steps(folder: Path) -> None:
    assert step_time(planned(folder, "dapo_math_7b", "cpu_debug")) is None
    plan = planned(folder, "dapo_math_7b", "gpu8x80_long", "trainer.total_training_steps=null")
    assert step_time(plan) is not None
    assert run_hours(plan) is None


def hours_table() -> Any:
    """The script that writes the table."""
    path = REPO_ROOT / "scripts" / "hours_table.py"
    spec = importlib.util.spec_from_file_location("hours_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


def test_the_table_of_hours_is_that_of_the_experiments() -> None:
    GlobalHydra.instance().clear()
    script = hours_table()
    page = (REPO_ROOT / "docs" / "launching.md").read_text()
    assert page == script.document(page, script.table(script.rows())), "run scripts/hours_table.py"

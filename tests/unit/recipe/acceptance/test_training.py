"""What a training is told on a machine, and what is made of what it left."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from recipe.acceptance.machine import GIB, Machine
from recipe.acceptance.results import Status
from recipe.acceptance.timeline import ROLLOUT_TIMES_FILE, MemorySeen, Sample
from recipe.acceptance.training import Plan, TrainingSeen, estimated, plan, reason, seen
from recipe.acceptance.training_checks import (
    log_prob_check,
    memory_checks,
    step_time_check,
    steps_check,
    sync_check,
)
from recipe.analysis.runs import RUN_FILES
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.preflight.memory import Peaks

pytestmark = pytest.mark.usefixtures("parsed_once")
GPU = Machine("cuda", "NVIDIA H100", 80 * GIB, "580", True, True)
CPU = Machine("cpu", "a processor", 24 * GIB, "", False, True)


def planned(machine: Machine, small: bool, folder: Path) -> Plan:
    return plan(machine, small, folder, ensure_checkpoint(), (folder / "train", folder / "val"))


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    "machine", [GPU, replace(GPU, has_flash_attention=False, has_dashboard=False), CPU]
)
def test_the_configuration_composes_on_every_machine(
    machine: Machine, small: bool, tmp_path: Path
) -> None:
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose("online_refiner", list(planned(machine, small, tmp_path).overrides))
    assert config.trainer.device == machine.device
    assert config.constraint.kind == "dynamic"
    assert config.trainer.total_training_steps == config.trainer.test_freq


def test_what_a_machine_lacks_is_configured_and_nothing_else(tmp_path: Path) -> None:
    whole = set(planned(GPU, False, tmp_path).overrides)
    bare = replace(GPU, has_flash_attention=False, has_dashboard=False)
    assert set(planned(bare, False, tmp_path).overrides) - whole == {
        "actor_rollout_ref.model.use_remove_padding=false",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        "+ray_kwargs.ray_init.include_dashboard=false",
    }


def test_the_estimate_is_preflights_of_this_gpu(tmp_path: Path) -> None:
    peaks = estimated(planned(GPU, True, tmp_path))
    assert peaks is not None
    # Shares of 0.4 and 0.3, and processes; the tiny model weighs nothing.
    assert peaks.rollout == pytest.approx(0.7 * 80 * GIB, rel=0.02)
    assert estimated(planned(CPU, True, tmp_path)) is None


def data(step_s: float, **more: float) -> dict[str, Any]:
    return {
        "timing_s/step": step_s,
        "timing_s/gen": 4.0,
        "timing_s/update_weights": 0.5,
        "constraint/penalty_mean": 0.1,
        "constraint/kept_total": 7.0,
        "actor/pg_loss": 0.0,
        "actor/grad_norm": 1.0,
        "monitor/rollout_logprob_diff_max": 0.3,
        "training/rollout_probs_diff_mean": 0.001,
        **more,
    }


def unrefined(step_s: float) -> dict[str, Any]:
    return {k: v for k, v in data(step_s).items() if not k.startswith("constraint/")}


GOOD = TrainingSeen(
    failure="",
    steps=4,
    metrics={0: {"val": 0.3}, 1: data(60), 2: data(12), 3: unrefined(10), 4: data(14)},
    memory=MemorySeen(50 * GIB, 3 * GIB, 20 * GIB),
    estimated=Peaks(57 * GIB, 40 * GIB),
    outputs={0: {"p": "a", "q": "b", "r": "c"}, 4: {"r": "y", "p": "a", "q": "x"}},
)


def test_a_good_training_passes() -> None:
    found = [
        *steps_check(GOOD),
        *log_prob_check("cuda", GOOD),
        *sync_check(GOOD),
        *memory_checks(GOOD),
        *step_time_check(GOOD),
    ]
    assert {check.name: check.status for check in found} == {
        "training with the constraint": Status.PASS,
        "rollout and actor log-probs": Status.PASS,
        "weight sync": Status.PASS,
        "memory while rollouts are made": Status.PASS,
        "memory during an update": Status.PASS,
        "memory with all servers asleep": Status.PASS,
        "step time with refinement": Status.PASS,
    }
    assert found[2].figure.startswith("2 of 3 greedy answers changed")
    assert found[-1].numbers["ratio"] == pytest.approx(1.3)  # 13 s against 10, not the first


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        (2, {"actor/grad_norm": float("nan")}, "actor/grad_norm"),
        (4, {"constraint/penalty_mean": 0.0}, "penalty 0 to 0.1"),
    ],
)
def test_a_constraint_that_is_not_at_work_fails(
    step: int, change: dict[str, float], words: str
) -> None:
    bad = replace(GOOD, metrics={**GOOD.metrics, step: data(12, **change)})
    (check,) = steps_check(bad)
    assert check.status is Status.FAIL
    assert words in check.figure


def test_a_training_that_ended_early_says_why_and_its_steps_still_count() -> None:
    early = replace(GOOD, failure="exit status 1: OutOfMemory", metrics={1: data(60), 2: data(12)})
    (check,) = steps_check(early)
    assert check.status is Status.FAIL
    assert "2 of 4 steps" in check.figure and "OutOfMemory" in check.figure
    assert log_prob_check("cuda", early)[0].status is Status.PASS
    for needs_more in (sync_check, step_time_check):
        with pytest.raises(LookupError, match="2 training steps were logged"):
            needs_more(early)


def test_servers_that_differ_from_the_actor_fail() -> None:
    bad = replace(GOOD, metrics={1: data(9, **{"monitor/rollout_logprob_diff_max": 4.0})})
    assert log_prob_check("cuda", bad)[0].status is Status.FAIL
    assert log_prob_check("cpu", GOOD)[0].status is Status.FAIL  # 0.3 nats in float32


def test_weights_that_change_no_answer_fail() -> None:
    assert (
        sync_check(replace(GOOD, outputs={0: {"p": "a", "q": "b"}, 4: {"q": "b", "p": "a"}}))[
            0
        ].status
        is Status.FAIL
    )


@pytest.mark.parametrize(
    ("memory", "statuses"),
    [
        (MemorySeen(60 * GIB, 3 * GIB, 20 * GIB), (Status.FAIL, Status.PASS, Status.PASS)),
        (MemorySeen(50 * GIB, 30 * GIB, 45 * GIB), (Status.PASS, Status.FAIL, Status.FAIL)),
        (MemorySeen(50 * GIB, None, None), (Status.PASS, Status.NONE, Status.NONE)),
    ],
)
def test_memory_is_held_against_the_estimate(
    memory: MemorySeen, statuses: tuple[Status, ...]
) -> None:
    found = memory_checks(replace(GOOD, memory=memory))
    assert tuple(check.status for check in found) == statuses


def test_without_an_estimate_memory_is_shown_and_not_judged() -> None:
    found = memory_checks(replace(GOOD, estimated=None))
    assert {check.status for check in found} == {Status.NONE}
    assert found[0].figure.startswith("50.0 GiB")


def test_a_folder_is_read_whole_or_torn(tmp_path: Path) -> None:
    made = planned(CPU, True, tmp_path)
    timing = {"timing_s/update_actor": 3.0, "timing_s/old_log_prob": 1.0}
    lines = [json.dumps({"step": 1, "data": data(8.5, **timing)}), '{"step": 2, "da']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    (tmp_path / "rollout_times.jsonl").write_text(
        '{"step": 1, "judged_at_s": 100.0, "settled_at_s": 104.0}\n'
    )
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "0.jsonl").write_text('{"input": "p", "output": "x"}\n')
    samples = [Sample(102.0, 9), Sample(104.1, 8), Sample(106.0, 5)]
    found = seen(made, CPU, "killed", samples)
    assert set(found.metrics) == {1}
    assert found.outputs == {0: {"p": "x"}}
    assert found.memory == MemorySeen(9, 5, 5)


def test_the_reason_is_the_first_error_of_a_log_whoever_wrote_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "\x1b[36m(Server pid=1)\x1b[0m UserWarning: ModuleNotFoundError('x') is harmless\n"
        "\x1b[36m(Server pid=1)\x1b[0m (EngineCore pid=2) ERROR 11-26 09:45:00 [core.py:1346] "
        "ValueError: no room\n"
        "ray.exceptions.RayTaskError: see above\nbye\n"
    )
    assert reason(log) == "ValueError: no room"
    log.write_text("Killed\n")
    assert reason(log) == "Killed"
    log.write_text("")
    assert reason(log) == "no output"


def test_the_trials_own_file_is_none_of_a_runs() -> None:
    assert ROLLOUT_TIMES_FILE not in RUN_FILES

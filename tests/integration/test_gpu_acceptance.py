"""The trial of a GPU on a machine without one: the same script, smaller, so it keeps working."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.timeout(1200), pytest.mark.vllm_kernels]

REPO_ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 1000
NEEDS_A_GPU = {
    "sleep and wake with speculation",
    "memory while rollouts are made",
    "memory during an update",
    "memory with all servers asleep",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of one trial."""
    out = tmp_path_factory.mktemp("acceptance") / "out"
    command = [sys.executable, str(REPO_ROOT / "scripts" / "gpu_acceptance.py")]
    options = ["--device", "cpu", "--small", "--out", str(out), "--limit-s", str(LIMIT_S)]
    done = subprocess.run(command + options, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    content: dict[str, Any] = json.loads((out / "acceptance.json").read_text())
    return content


def checks(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in found["checks"]}


def test_everything_is_checked_and_only_what_needs_a_gpu_is_left_open(
    found: dict[str, Any],
) -> None:
    statuses = {name: check["status"] for name, check in checks(found).items()}
    speculating = {f"{way}, {load} in flight" for way in ("ngram", "copy") for load in (4, 16)}
    trained = {"training with the constraint", "rollout and actor log-probs", "weight sync"}
    timed = {"copy is the fastest", "step time with refinement"}
    assert set(statuses) == speculating | trained | timed | NEEDS_A_GPU
    assert {name for name, status in statuses.items() if status == "-"} == NEEDS_A_GPU
    assert all(statuses[name] == "pass" for name in speculating | trained)


def test_speculation_saves_passes_and_changes_no_greedy_output(found: dict[str, Any]) -> None:
    for load in (4, 16):
        numbers = checks(found)[f"copy, {load} in flight"]["numbers"]
        assert numbers["tokens_a_pass"] > 2
        assert numbers["acceptance"] > 0.5
        assert numbers["widest_gap_nats"] < 1e-3


def test_both_kinds_of_steps_were_timed_in_one_training(found: dict[str, Any]) -> None:
    numbers = checks(found)["step time with refinement"]["numbers"]
    assert len(numbers["refined_s"]) == 2 and len(numbers["without_s"]) == 1
    paid = checks(found)["training with the constraint"]["numbers"]["penalty"]
    assert len(paid) == 3 and min(paid) > 0


def test_memory_was_seen_while_rollouts_were_made(found: dict[str, Any]) -> None:
    assert checks(found)["memory while rollouts are made"]["numbers"]["bytes"] > 1 << 30


def test_the_record_names_the_machine_and_what_ran(found: dict[str, Any]) -> None:
    assert found["device"] == "cpu" and found["small"] is True
    assert {"python", "verl", "torch", "ray", "transformers"} <= set(found["versions"])
    assert found["card"] and found["seconds"] > 0

"""The refiner's worker group on a real Ray cluster with real vLLM servers, hurt in various ways."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipe.cpu import environment

REPO_ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = REPO_ROOT / "recipe" / "cpu" / "checkpoint"
ROLLOUTS, DEADLINE_S = 48, 15.0

pytestmark = pytest.mark.vllm_kernels


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What `servers_on_ray.py` saw."""
    script = Path(__file__).with_name("servers_on_ray.py")
    path = os.pathsep.join([str(REPO_ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), str(CHECKPOINT)],
        env=os.environ | environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def finished(outcomes: dict[str, int]) -> int:
    return outcomes.get("refined", 0) + outcomes.get("verbatim", 0)


def test_two_servers_share_the_load(seen: dict[str, Any]) -> None:
    assert seen["start"]["alive"] == 2
    assert min(seen["undisturbed"]["loads"]) > 0
    assert finished(seen["undisturbed"]["outcomes"]) >= ROLLOUTS * 0.9


def test_a_server_that_hangs_costs_its_samples_a_deadline_and_the_others_nothing(
    seen: dict[str, Any],
) -> None:
    outcomes = seen["hanging"]["outcomes"]
    assert sum(outcomes.values()) == ROLLOUTS
    # Each server was sent half of them; some may have been answered before it was stopped.
    assert 0 < outcomes.get("deadline", 0) <= ROLLOUTS / 2 + 1
    assert finished(outcomes) >= ROLLOUTS / 2 - 1
    assert seen["hanging"]["seconds"] < 2 * DEADLINE_S


def test_a_killed_server_takes_only_its_own_samples_with_it(seen: dict[str, Any]) -> None:
    outcomes = seen["killed"]["outcomes"]
    assert sum(outcomes.values()) == ROLLOUTS
    assert outcomes.get("engine_error", 0) > 0
    assert finished(outcomes) > 0


def test_the_other_server_refines_all_once_the_loss_is_known(seen: dict[str, Any]) -> None:
    assert seen["after_loss"].get("engine_error", 0) == 0
    assert finished(seen["after_loss"]) >= ROLLOUTS * 0.9


def test_the_killed_server_comes_back_and_takes_its_share(seen: dict[str, Any]) -> None:
    end = seen["end"]
    assert (end["alive"], end["lost_total"], end["restarts_total"]) == (2, 1, 1)
    assert min(seen["restored"]["loads"]) > 0
    assert finished(seen["restored"]["outcomes"]) >= ROLLOUTS * 0.9

"""What launchers are told of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[3]


def facts(*overrides: str) -> dict[str, str]:
    told = subprocess.run(
        [sys.executable, "scripts/lib/job_facts.py", *overrides],
        cwd=REPO_ROOT, text=True, capture_output=True, check=True,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in told.stdout.splitlines())


@pytest.mark.parametrize(
    ("overrides", "nodes", "gpus"),
    [
        (("experiment=large_dapo_32b", "hardware=nodes8x80_32b"), "4", "8"),
        (("experiment=large_dapo_7b", "hardware=nodes8x80", "trainer.nnodes=3"), "3", "8"),
        # Two of the machine's four train; the others serve.
        (("experiment=ppo_dialogue_dynamic", "hardware=gpu4x48_reward_model"), "1", "4"),
        # A pool on a machine of its own.
        (("experiment=dapo_apps", "hardware=gpu8x80", "machine.nodes=2"), "2", "8"),
        (("experiment=quickstart_sane", "hardware=cpu_debug"), "1", "0"),
    ],
)
def test_the_nodes_and_gpus_are_those_of_the_machine(
    overrides: tuple[str, ...], nodes: str, gpus: str
) -> None:
    found = facts(*overrides)
    assert (found["nodes"], found["gpus"]) == (nodes, gpus)


def test_the_folders_are_the_runs() -> None:
    found = facts("experiment=quickstart_sane", "hardware=cpu_debug", "run.dir=/shared/a")
    assert found["run_folder"] == "/shared/a"
    assert found["checkpoints"] == "/shared/a/checkpoints"


def test_what_does_not_compose_is_refused_with_the_choices() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/lib/job_facts.py", "experiment=nope"],
        cwd=REPO_ROOT, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: the configuration does not compose" in done.stderr
    assert "dynamic_dapo_apps" in done.stderr

"""What launchers are told of a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lib.job_facts import main

REPO_ROOT = Path(__file__).resolve().parents[3]

Facts = Callable[..., dict[str, str]]


@pytest.fixture
def facts(
    parsed_once: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Facts:
    """What the script says of these overrides, by name."""

    def told(*overrides: str) -> dict[str, str]:
        monkeypatch.setattr(sys, "argv", ["job_facts.py", *overrides])
        assert main() == 0
        return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())

    return told


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
    facts: Facts, overrides: tuple[str, ...], nodes: str, gpus: str
) -> None:
    found = facts(*overrides)
    assert (found["nodes"], found["gpus"]) == (nodes, gpus)


def test_the_folders_are_the_runs() -> None:
    """As the launchers call it."""
    told = subprocess.run(
        [sys.executable, "scripts/lib/job_facts.py", "experiment=quickstart_sane",
         "hardware=cpu_debug", "run.dir=/shared/a"],
        cwd=REPO_ROOT, text=True, capture_output=True, check=True,
    )  # fmt: skip
    found = dict(line.split("=", 1) for line in told.stdout.splitlines())
    assert found["run_folder"] == "/shared/a"
    assert found["checkpoints"] == "/shared/a/checkpoints"


def test_what_does_not_compose_is_refused_with_the_choices(
    parsed_once: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["job_facts.py", "experiment=nope"])
    assert main() == 2
    error = capsys.readouterr().err
    assert "error: the configuration does not compose" in error
    assert "dynamic_dapo_apps" in error

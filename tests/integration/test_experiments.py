"""verl's own validation accepts every committed experiment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.cpu import environment
from recipe.online_refiner.experiments import experiment_names

pytestmark = pytest.mark.timeout(600)


def test_verl_accepts_every_experiment() -> None:
    """For GPUs, with Megatron and reward models: verl's validation reads the config alone."""
    found = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "validate_experiments.py")],
        env=os.environ | environment(),
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    lines = [line.split(maxsplit=2) for line in found.stdout.splitlines()]
    said = {line[1]: line[2:] for line in lines if line[:1] == ["experiment"]}
    assert set(said) == set(experiment_names())
    assert {name: words for name, words in said.items() if words} == {}

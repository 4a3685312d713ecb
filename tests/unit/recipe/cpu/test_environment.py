"""The environment of a CPU run is complete, cheap to ask for, and usable from a shell."""

from __future__ import annotations

import os
import subprocess
import sys

from recipe.cpu import PLUGIN_MODULE, environment


def test_every_value_is_a_string_as_ray_demands() -> None:
    assert all(isinstance(value, str) for value in environment().values())


def test_asking_for_it_imports_neither_torch_nor_verl() -> None:
    code = "import sys, recipe.cpu; recipe.cpu.environment(); print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_a_caller_cannot_change_it_for_others() -> None:
    environment()["VERL_PLATFORM"] = "changed"
    assert environment()["VERL_PLATFORM"] == "cpu"


def test_the_shell_form_sets_the_same_variables() -> None:
    script = f'eval "$({sys.executable} -m recipe.cpu)"; echo "$VERL_USE_EXTERNAL_MODULES"'
    result = subprocess.run(
        ["bash", "-c", script], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == PLUGIN_MODULE

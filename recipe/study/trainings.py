"""The trainings of a study: their folders, their commands, and what has become of each."""

from __future__ import annotations

import fcntl
import json
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from recipe.cpu import python_command
from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.progress import last_step
from recipe.cpu.quickstart import Training, TrainingFailed, run
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.study.plan import SMOLLM2, TAUGHT_SMOLLM2, TINY, Study, StudyError

FAILURES_FILE = "failures.jsonl"
LOCK_FILE = "training.lock"
VALIDATION_FOLDER = "validation"
RUNS_FOLDER = "runs"


class State(StrEnum):
    """What has become of a training."""

    DONE = "done"
    OPEN = "open"
    FAILED = "failed"


@dataclass(frozen=True)
class Inputs:
    """What every training of a study starts from: files of data, and the model as verl reads it."""

    train: Path
    test: Path
    model: str


@dataclass(frozen=True)
class Planned:
    """A training of the study, and how often it may fail."""

    training: Training
    attempts: int

    @property
    def state(self) -> State:
        """Read from the run's folder, so that another invocation goes on."""
        if last_step(self.training.folder / "metrics.jsonl") >= self.training.steps:
            return State.DONE
        return State.FAILED if len(self.failures()) >= self.attempts else State.OPEN

    def failures(self) -> list[str]:
        """Why it failed, each time."""
        path = self.training.folder / FAILURES_FILE
        if not path.exists():
            return []
        return [json.loads(line)["why"] for line in path.read_text(encoding="utf-8").splitlines()]

    def note_failure(self, why: str) -> None:
        """Add a failure to the run's folder."""
        record = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "why": why}
        self.training.folder.mkdir(parents=True, exist_ok=True)
        with (self.training.folder / FAILURES_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def planned(study: Study, out: Path) -> list[Planned]:
    """All trainings, seed by seed, so that arms can be compared before the last seed is done.

    Args:
        study: what they belong to. out: its folder.
    """
    seeds = sorted({seed for arm in study.arms for seed in study.seeds_of(arm)})
    return [
        Planned(_training(study, arm, seed, out), study.attempts)
        for seed in seeds
        for arm in study.arms
        if seed in study.seeds_of(arm)
    ]


def _training(study: Study, arm: str, seed: int, out: Path) -> Training:
    folder = out / RUNS_FOLDER / arm / f"seed{seed}"
    overrides = study.arms[arm].overrides
    return Training(arm, overrides, study.setting, seed, study.steps, folder, study.limit_s)


def command(study: Study, inputs: Inputs, training: Training) -> list[str]:
    """The command line of one training."""
    folder = training.folder
    return [
        *(python_command() if study.on_cpu else [sys.executable]),
        *("-m", "recipe.online_refiner.main"),
        *(*study.base, *training.overrides),
        *(f"run.dir={folder}", f"run.arm={training.arm}", f"run.setting={training.setting}"),
        *(f"run.seed={training.seed}", f"trainer.total_training_steps={training.steps}"),
        f"trainer.validation_data_dir={folder / VALIDATION_FOLDER}",
        *(f"data.train_files={inputs.train}", f"data.val_files={inputs.test}"),
        f"actor_rollout_ref.model.path={inputs.model}",
    ]


def prepared_inputs(study: Study, out: Path) -> Inputs:
    """Files and model of the study; generated problems are written into its folder.

    Raises StudyError if the model's weights are not installed.
    """
    model = _model_folder(study.model)
    if study.data.micro_apps is not None:
        generated = study.data.micro_apps
        train, test = prepare_micro_apps(
            out / "data", generated.train, generated.test, generated.seed
        )
        return Inputs(train, test, model)
    assert study.data.train is not None and study.data.test is not None
    return Inputs(study.data.train.resolve(), study.data.test.resolve(), model)


def _model_folder(model: str) -> str:
    """The model as verl reads it. Raises StudyError if its weights are not installed."""
    if model == TINY:
        return str(ensure_checkpoint())
    if model not in (SMOLLM2, TAUGHT_SMOLLM2):
        return model
    from recipe.cpu.pretrained_model import ensure_smollm2  # these two import torch
    from recipe.cpu.taught_smollm2 import ensure_taught_smollm2

    try:
        return str(ensure_smollm2() if model == SMOLLM2 else ensure_taught_smollm2())
    except FileNotFoundError as error:
        raise StudyError(f"model={model}: {error}") from error


def train(
    todo: Sequence[Planned], command_of: Callable[[Training], list[str]], jobs: int
) -> Generator[tuple[Planned, str]]:
    """Train what is open, `jobs` at once; yields each as it ends, with the failure or nothing.

    On an interruption the trainings under way are ended and not counted as failures. What another
    call is training at this moment is left to it.
    """
    stop = threading.Event()

    def one(item: Planned) -> str:
        with _alone(item.training.folder) as is_ours:
            if stop.is_set() or not is_ours or item.state is not State.OPEN:
                return ""
            try:
                run(item.training, command_of(item.training), stop.is_set)
            except TrainingFailed as failure:
                why = " ".join(str(failure).split())
                if not stop.is_set():
                    item.note_failure(why)
                return why
            return ""

    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from zip(todo, pool.map(one, todo), strict=True)
        finally:
            stop.set()


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other process has the run's folder; if so it is ours for as long as the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True

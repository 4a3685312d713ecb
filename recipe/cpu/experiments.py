"""Every committed experiment for a step or two on a machine without a GPU, and a table of what ran.

A run composes the experiment's own file with `hardware=cpu_debug` in place of its machine, and the
tiny model, its data, template and sizes in place of the real ones (`SMALL`); everything else is the
experiment's. What has been trained is not trained again, so an interrupted check goes on.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.cpu.math_model import ensure_math_model
from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.micro_dialogue import prepare_micro_dialogue
from recipe.cpu.micro_math import prepare_micro_math
from recipe.cpu.progress import last_step
from recipe.cpu.quickstart import EXIT_INTERRUPTED, Training, TrainingFailed, run
from recipe.cpu.reward_model import ensure_reward_model
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG, experiment_names, hardware_of
from recipe.online_refiner.resolve.resolving import resolve

SMALL = (
    *("data.train_batch_size=8", "data.val_max_samples=8"),
    *("data.max_prompt_length=192", "data.max_response_length=64"),
    "data.filter_overlong_prompts_workers=1",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    *("refiner.template=micro-v1", "refiner.max_prompt_length=384"),
    *("trainer.save_freq=-1", "trainer.test_freq=-1", "trainer.val_before_train=false"),
)
"""Sizes for the tiny model, and the only template that it was taught."""
SMALL_MATH = (
    # In one piece: the template has no {before}.
    "refiner.block_tokens=null",
    # A fifth of the responses' length, as 4,096 tokens are of DAPO's.
    "reward.reward_kwargs.overlong_buffer_cfg.len=null",
    "actor_rollout_ref.rollout.val_kwargs.n=2",
)
"""What else changes for experiments on mathematics."""

MATH = "dapo_math"
"""In the names of experiments on mathematics, whose tiny model adds and writes no programs."""
YIELD_S = 1.0
"""Whoever waits for the lock gets it meanwhile; the kernel keeps no order among them."""


@dataclass(frozen=True)
class Check:
    """One experiment to run.

    Attributes:
        experiment: its name. steps: training steps. folder: the run's folder.
        command: the training's command line.
        differs: what else the machine without a GPU changes, in words.
        same_as: an experiment before it in which everything that trains is equal, or "".
    """

    experiment: str
    steps: int
    folder: Path
    command: tuple[str, ...]
    differs: str = ""
    same_as: str = ""

    @property
    def is_done(self) -> bool:
        return last_step(self.folder / "metrics.jsonl") >= self.steps

    def run(self, limit_s: float) -> None:
        """Train it; raises TrainingFailed, also if it takes longer than the limit."""
        training = Training(self.experiment, (), "cpu", 0, self.steps, self.folder, limit_s)
        run(training, list(self.command))


@dataclass(frozen=True)
class Outcome:
    """What became of a check. `seconds` is None if it had run before."""

    check: Check
    failure: str
    seconds: float | None

    def row(self) -> tuple[str, ...]:
        took = "before" if self.seconds is None else f"{self.seconds:.0f}"
        same = f"trains as {self.check.same_as}" if self.check.same_as else ""
        notes = "; ".join(note for note in (self.check.differs, same, self.failure) if note)
        return self.check.experiment, "FAILED" if self.failure else "ok", took, notes


def checks(names: Sequence[str], out: Path, steps: int) -> list[Check]:
    """A check for each experiment; those that train as another one does come last."""
    apps = prepare_micro_apps(out / "data" / "apps", 64, 16)
    dialogue = prepare_micro_dialogue(out / "data" / "prompt_collection", 64, 16)
    math = prepare_micro_math(out / "data" / "dapo_math", 64, 16)
    first: dict[str, str] = {}
    found = []
    with initialize_config_dir(str(CONFIG), version_base=None):
        for name in names:
            files = dialogue if "dialogue" in name else math if MATH in name else apps
            overrides = _overrides(name, files, out / name, steps)
            config = compose("online_refiner", list(overrides))
            same_as = first.setdefault(_digest(config), name)
            if config.reward.reward_model.enable:
                overrides += (f"reward.reward_model.model_path={ensure_reward_model()}",)
            meant = [f"experiment={name}", f"hardware={hardware_of(name)}"]
            differs = difference(compose("online_refiner", meant), config)
            same_as = "" if same_as == name else same_as
            command = (sys.executable, "-m", "recipe.online_refiner.main", *overrides)
            found.append(Check(name, steps, out / name, command, differs, same_as))
    return sorted(found, key=lambda check: bool(check.same_as))


def difference(meant: DictConfig, config: DictConfig) -> str:
    """What runs in place of the machine's own: "actor: fsdp2 for megatron, …", or nothing."""
    keys = {"actor": "actor_rollout_ref.actor.strategy", "engine": "actor_rollout_ref.rollout.name"}
    if resolve(config).refines:
        keys["refiner"] = "refiner.placement"
    found = {name: [OmegaConf.select(one, key) for one in (config, meant)]
             for name, key in keys.items()}  # fmt: skip
    return ", ".join(f"{name}: {here} for {there}" for name, (here, there) in found.items()
                     if here != there)  # fmt: skip


def check_all(todo: Sequence[Check], limit_s: float, lock: Path | None) -> Iterator[Outcome]:
    """Run each in turn, holding the lock file only while one runs."""
    for check in todo:
        if check.is_done:
            yield Outcome(check, "", None)
            continue
        with locked(lock) if lock else nullcontext():
            started = time.monotonic()
            failure = ""
            try:
                check.run(limit_s)
            except TrainingFailed as error:
                failure = " ".join(str(error).split())
        yield Outcome(check, failure, time.monotonic() - started)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive `flock` on the file, and leave it to others for a moment afterwards."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    time.sleep(YIELD_S)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in Markdown."""
    head = ("experiment", "result", "seconds", "on the CPU")
    rows = [head, ("---",) * len(head), *(outcome.row() for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the options ask for; 0 if all of it came to its end."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    todo = checks(options.experiments or experiment_names(), options.out.resolve(), options.steps)
    outcomes: list[Outcome] = []
    try:
        for outcome in check_all(todo, options.limit_s, options.lock):
            outcomes.append(outcome)
            print(f"| {' | '.join(outcome.row())} |", flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on with what is missing.")
    print(f"\n{table(outcomes)}")
    if len(outcomes) < len(todo):
        return EXIT_INTERRUPTED
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def _overrides(name: str, files: tuple[Path, Path], folder: Path, steps: int) -> tuple[str, ...]:
    is_math = MATH in name
    return (
        *("hardware=cpu_debug", f"experiment={name}", *SMALL, *(SMALL_MATH if is_math else ())),
        f"actor_rollout_ref.model.path={ensure_math_model() if is_math else ensure_checkpoint()}",
        *(f"data.train_files={files[0]}", f"data.val_files={files[1]}"),
        *(f"run.dir={folder}", f"trainer.total_training_steps={steps}"),
    )


def _digest(config: DictConfig) -> str:
    """Of everything that says how it trains; `run` only names it and says where it writes."""
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    del values["run"]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.cpu.experiments",
        description="Train committed experiments for a step with the tiny model on the CPU, and "
        "print a table. Run it again with the same --out to go on after an interruption.",
    )
    parser.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        type=_experiment,
        help="default: all, those that train as another one does last",
    )
    parser.add_argument("--steps", type=int, default=1, help="training steps each (default 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments_cpu"))
    parser.add_argument("--limit-s", type=float, default=600.0, help="seconds for one (600)")
    parser.add_argument("--lock", type=Path, help="a file to hold an flock on while one runs")
    return parser


def _experiment(text: str) -> str:
    names = experiment_names()
    if text not in names:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
    return text


if __name__ == "__main__":
    sys.exit(main())

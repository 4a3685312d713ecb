"""The whole method on a machine without a GPU: data, model, one training an arm, figures, summary.

`scripts/quickstart.sh` calls this in the right environment. Every arm is a training of its own by
`recipe.online_refiner.main`, the entry point of a cluster run; what is finished is not run again,
and what was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.analysis import report
from recipe.analysis.plot import write_report
from recipe.analysis.runs import load_runs
from recipe.cpu import environment, python_command
from recipe.cpu.launch import end_session, fork_server
from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.progress import Progress, last_step
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.data.arguments import positive

ARMS = {
    "none": ("constraint.kind=none", "refiner.observe=true"),
    "static_kl": (
        "constraint.kind=static_kl",
        "constraint.static_kl.coef=0.2",
        "refiner.observe=true",
    ),
    "dynamic_sft": ("constraint.kind=dynamic", "constraint.inject=sft", "constraint.lambda=1.0"),
    "dynamic_advantage": (
        "constraint.kind=dynamic",
        "constraint.inject=advantage",
        "constraint.conditioning=self_feeding",
        "constraint.accumulate=return_to_go",
        "constraint.lambda=0.005",
    ),
}
"""What sets the arms apart; everything else is equal. The values are those of docs/study.md."""

OTHER_ARMS = {"distill": ("constraint.kind=distill", "constraint.lambda=1.0")}
"""Trained only if asked for."""
ALIASES = {"dynamic": "dynamic_sft"}
STEPS = {"high": 12, "stress": 8, "sane": 40}
DEFAULT_SETTING = "high"
FREE_DISK_BYTES = 2 << 30
POLL_S = 1.0
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Training:
    """One arm with one seed.

    Attributes:
        arm: its name. overrides: what sets it apart. steps: training steps in all.
        folder: the run's folder. limit_s: seconds after which it is given up.
    """

    arm: str
    overrides: tuple[str, ...]
    setting: str
    seed: int
    steps: int
    folder: Path
    limit_s: float = float("inf")

    def command(self, train_file: Path, val_file: Path) -> list[str]:
        """The command line of the training."""
        return [
            *(*python_command(), "-m", "recipe.online_refiner.main"),
            *("hardware=cpu_debug", f"experiment=quickstart_{self.setting}"),
            *self.overrides,
            f"run.dir={self.folder}",
            f"run.arm={self.arm}",
            f"run.setting={self.setting}",
            f"run.seed={self.seed}",
            f"data.train_files={train_file}",
            f"data.val_files={val_file}",
            f"actor_rollout_ref.model.path={ensure_checkpoint()}",
            f"trainer.total_training_steps={self.steps}",
        ]


class TrainingFailed(RuntimeError):
    """A training ended before its last step; the message says where to look."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the options ask for; 0 if every arm came to its end."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.update(environment())
    try:
        with fork_server():
            return _run_all(options)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.", flush=True)
        return EXIT_INTERRUPTED


def _run_all(options: argparse.Namespace) -> int:
    if shutil.disk_usage(_existing(options.out)).free < FREE_DISK_BYTES:
        print(f"--out {options.out}: less than 2 GiB are free there; give another folder")
        return 1
    started = time.monotonic()
    out = options.out.resolve()
    print(f"[1/3] micro-APPS problems -> {out / 'data'}", flush=True)
    train_file, val_file = prepare_micro_apps(out / "data")
    trainings = _trainings(options, out)
    print(f"[2/3] {len(trainings)} trainings, setting '{options.setting}'", flush=True)
    failures = []
    for training in trainings:
        try:
            run(training, training.command(train_file, val_file))
        except TrainingFailed as failure:
            failures.append(str(failure))
            print(failure, flush=True)
    figures = out / options.setting / "figures"
    print(f"[3/3] figures -> {figures}", flush=True)
    found = load_runs([t.folder for t in trainings])
    text, paths = write_report(found, figures)
    print("\n".join([text, "", "Files", *(f"  {path}" for path in paths)]))
    (page, *_), _ = report.write_report(found, figures, pictures=False)
    print(f"\nThe report, for any browser: {page}")
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes in all.")
    return 1 if failures else 0


def run(
    training: Training, command: list[str], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Train one arm, showing its steps; returns at once if it has been trained already.

    Args:
        stopped: asked every second; the training is ended once it says so.

    Raises TrainingFailed if it does not come to its end.
    """
    metrics = training.folder / "metrics.jsonl"
    if last_step(metrics) >= training.steps:
        print(f"  {training.arm} seed {training.seed}: done before", flush=True)
        return
    training.folder.mkdir(parents=True, exist_ok=True)
    log_path = training.folder / "train.log"
    deadline = time.monotonic() + training.limit_s
    with log_path.open("ab") as log, Progress(training.arm, training.steps, metrics) as progress:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None and time.monotonic() < deadline and not stopped():
                progress.update()
                time.sleep(POLL_S)
        finally:
            end_session(process)
        progress.update()
    if process.returncode != 0 or last_step(metrics) < training.steps:
        raise TrainingFailed(
            f"  {training.arm} seed {training.seed} ended with exit status {process.returncode} "
            f"after step {last_step(metrics)} of {training.steps}: {_reason(log_path)}. The whole "
            f"log: {log_path}. Run the same command again to go on from its last checkpoint."
        )


def _reason(log_path: Path) -> str:
    """The last line of the log that names an error; training logs are long and end in others."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return named[-1] if named else "no error is named in it"


def _trainings(options: argparse.Namespace, out: Path) -> list[Training]:
    return [
        Training(
            arm=arm,
            overrides=overrides,
            setting=options.setting,
            seed=seed,
            steps=options.steps or STEPS[options.setting],
            folder=out / options.setting / arm / f"seed{seed}",
        )
        for seed in range(options.seeds)
        for arm, overrides in _arms(options).items()
    ]


def _arms(options: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Overrides by arm: those that were asked for, one of the user's own, or all of ours."""
    known = ARMS | OTHER_ARMS
    arms = {name: known[name] for name in (ALIASES.get(arm, arm) for arm in options.arm)}
    if options.overrides:
        name = re.sub(r"[^\w.-]+", "_", "_".join(options.overrides))
        arms[name] = tuple(options.overrides)
    return arms or ARMS


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart.sh",
        description="Train the tiny model on micro-APPS with the real stack, one training an arm, "
        "and draw the figures.",
        epilog="Run it again with the same options to go on after an interruption.",
    )
    parser.add_argument(
        "--setting",
        choices=list(STEPS),
        default=DEFAULT_SETTING,
        help=f"high (default): ten times the ordinary learning rate, {STEPS['high']} steps; "
        f"stress: twenty times, {STEPS['stress']} steps; sane: the ordinary one, "
        f"{STEPS['sane']} steps",
    )
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        choices=[*ARMS, *OTHER_ARMS, *ALIASES],
        help=f"an arm to train; may be repeated; default: {', '.join(ARMS)}. "
        "'dynamic' is dynamic_sft",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        type=_override,
        help="an arm of your own, e.g. algorithm=ppo constraint.inject=reward "
        "constraint.lambda=0.1 (algorithm: ppo, grpo or dapo; the keys are in "
        "recipe/online_refiner/config/online_refiner.yaml)",
    )
    parser.add_argument("--steps", type=positive, help="training steps instead of the setting's")
    parser.add_argument("--seeds", type=positive, default=1, help="seeds an arm (default 1)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/quickstart"), help="default: runs/quickstart"
    )
    return parser


def _override(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return text


if __name__ == "__main__":
    sys.exit(main())

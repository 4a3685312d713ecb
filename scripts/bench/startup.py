"""Time from the command to a training's first step, plainly and with the fork server, in one run.

    python scripts/bench/startup.py [--rounds 2] [--json FILE] [KEY=VALUE …]

The quickstart's training (tiny model, verl, Ray, vLLM for policy and refiner, the judge) is started
for real and ended after its first step. `plain` is how it starts without the fork server, when each
process makes its own imports; `alone` starts the training by itself, server included, as
`python -m recipe.online_refiner.main` does; `next` is a training of several that share a server, as
the arms of the quickstart do. They take turns, so that a busy machine slows all of them alike.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

from recipe.cpu import environment, python_command  # noqa: E402
from recipe.cpu.forked_python import SOCKET_VARIABLE  # noqa: E402
from recipe.cpu.launch import fork_server  # noqa: E402
from recipe.cpu.micro_apps import prepare_micro_apps  # noqa: E402
from recipe.cpu.progress import last_step  # noqa: E402
from recipe.cpu.quickstart import ARMS, Training  # noqa: E402

LIMIT_S = 600.0
POLL_S = 0.05
KINDS = ("plain", "alone", "next")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the seconds of each kind of start and their ratios."""
    options = _parser().parse_args(arguments)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        files = prepare_micro_apps(Path(folder) / "data", 64, 16)
        for turn in range(options.rounds):
            for kind in KINDS:
                run = Path(folder) / f"{kind}{turn}"
                seconds[kind].append(_until_first_step(kind, run, files, options.overrides))
                print(f"{kind:6s} {seconds[kind][-1]:6.1f} s", flush=True)
    medians = {kind: statistics.median(found) for kind, found in seconds.items()}
    for kind in KINDS[1:]:
        print(f"plain / {kind} = {medians['plain'] / medians[kind]:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds, "medians": medians}, indent=1))


def _until_first_step(
    kind: str, folder: Path, files: tuple[Path, Path], overrides: Sequence[str]
) -> float:
    """Seconds from the command until the first step is logged."""
    arm = ("trainer.val_before_train=false", "trainer.save_freq=-1", *ARMS["dynamic_sft"])
    training = Training("bench", (*arm, *overrides), "stress", 0, 2, folder)
    command = [*_python(kind), *training.command(*files)[len(python_command()) :]]
    with fork_server() if kind == "next" else nullcontext():
        if kind == "next":
            # The server is there, as it is for every training but the first.
            subprocess.run([*command, "--cfg", "job"], env=_variables(kind), capture_output=True)
        started = time.monotonic()
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=_variables(kind), stdout=log, stderr=log, start_new_session=True
            )
        try:
            while last_step(folder / "metrics.jsonl") < 1:
                elapsed = time.monotonic() - started
                if process.poll() is not None or elapsed > LIMIT_S:
                    raise SystemExit(
                        f"{kind} made no step:\n{(folder / 'log').read_text()[-4000:]}"
                    )
                time.sleep(POLL_S)
            return time.monotonic() - started
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _python(kind: str) -> list[str]:
    return python_command() if kind == "next" else [sys.executable]


def _variables(kind: str) -> dict[str, str]:
    without = {SOCKET_VARIABLE: ""} if kind == "plain" else {}
    return environment() | os.environ | without


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="starts of each kind (default 2)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    return parser


if __name__ == "__main__":
    main()

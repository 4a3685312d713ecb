"""`python -m recipe.study STUDY.yaml`: train what is missing of a study, then table and figures.

Run again, it goes on; what is done is never trained again. With `--packed` the runs come from a
file that `--pack` made, and nothing is trained.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from recipe.cpu import environment
from recipe.cpu.quickstart import EXIT_INTERRUPTED
from recipe.data.arguments import positive
from recipe.study.pack import pack_runs, unpacked
from recipe.study.plan import Study, StudyError, read_study
from recipe.study.results import read_results
from recipe.study.trainings import (
    RUNS_FOLDER,
    Planned,
    State,
    command,
    planned,
    prepared_inputs,
    train,
)

EXIT_BAD_STUDY = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the options ask for; 0 if all that was asked for came to its end."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        study = read_study(options.study)
    except StudyError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_STUDY
    out = (options.out or Path("runs/study") / study.name).resolve()
    unknown = [arm for arm in options.arm if arm not in study.arms]
    if unknown:
        print(
            f"--arm {unknown[0]}: no arm of it; there are {', '.join(study.arms)}", file=sys.stderr
        )
        return EXIT_BAD_STUDY
    if options.packed:
        with unpacked(options.packed) as runs:
            return _report(study, runs, out)
    try:
        failed = 0 if options.report_only else _train(study, out, options)
    except StudyError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_STUDY
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on with what is missing.", flush=True)
        return EXIT_INTERRUPTED
    if options.list:
        return 0
    runs = out / RUNS_FOLDER
    if options.pack:
        print(f"packed: {pack_runs(study, out, options.pack)}")
    if options.no_report:
        return 1 if failed else 0
    return _report(study, runs, out / "report") or (1 if failed else 0)


def _train(study: Study, out: Path, options: argparse.Namespace) -> int:
    """Train what is open, as far as --limit goes; the number of failures of this call."""
    todo = planned(study, out)
    counts = Counter(item.state for item in todo)
    print(f"{study.name}: {', '.join(f'{n} {state}' for state, n in counts.items())}", flush=True)
    chosen = [item for item in todo if not options.arm or item.training.arm in options.arm]
    open_ = [item for item in chosen if item.state is State.OPEN][: options.limit]
    if options.list:
        _list(chosen)
        return 0
    if not open_:
        return 0
    if study.on_cpu:
        # Of the fork server and of the trainings.
        os.environ.update(environment(study.threads))
    command_of = partial(command, study, prepared_inputs(study, out))
    from recipe.cpu.launch import fork_server

    failed = 0
    with fork_server() if study.on_cpu else nullcontext():
        for _, failure in train(open_, command_of, options.jobs):
            if failure:
                failed += 1
                print(failure, flush=True)
    return failed


def _list(todo: Sequence[Planned]) -> None:
    for item in todo:
        why = f": {item.failures()[-1]}" if item.state is State.FAILED else ""
        print(f"  {item.training.arm} seed {item.training.seed}: {item.state}{why}")


def _report(study: Study, runs: Path, out: Path) -> int:
    """Write tables, figures and page; 1 without any run."""
    from recipe.study.page import write_page

    results = read_results(study, runs)
    if not results.runs:
        print(f"no finished run in {runs}", file=sys.stderr)
        return 1
    text, paths = write_page(results, out)
    print("\n".join([text, "", "Files", *(f"  {path}" for path in paths)]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.study",
        description="Train the arms of a study over its seeds, and test what its file compares.",
        epilog="Run it again with the same options to go on. A run that has failed as often as "
        "the study's `attempts` is left; delete its failures.jsonl to try again.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml")
    parser.add_argument("--out", type=Path, help="default: runs/study/NAME")
    parser.add_argument(
        "--arm", action="append", default=[], help="train this arm alone; may be repeated"
    )
    parser.add_argument("--jobs", type=positive, default=1, help="trainings at once (default 1)")
    parser.add_argument("--limit", type=positive, help="train at most so many in this call")
    parser.add_argument("--list", action="store_true", help="say what is done, open and failed")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--no-report", action="store_true", help="train, and write no report")
    parser.add_argument("--pack", type=Path, metavar="FILE.tar.xz", help="pack the runs for others")
    parser.add_argument("--packed", type=Path, metavar="FILE.tar.xz", help="report on packed runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())

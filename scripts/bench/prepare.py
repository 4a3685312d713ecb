"""Memory and time of preparing data, for two numbers of rows: python scripts/bench/prepare.py

Each preparation runs in a process of its own, whose largest resident memory is asked for at its
end. The rows are as long as APPS's are on average; solutions are not run (--no-check).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = ("apps", "prompt_collection", "dapo_math")


def apps_record(number: int) -> dict[str, Any]:
    """About 1,700 characters of question, and 20 tests of 300."""
    case = f"{number} " * (300 // (len(str(number)) + 1))
    return {
        "problem_id": f"{number:06d}",
        "question": f"{number}: " + "print what is asked for. " * 68,
        "input_output": json.dumps({"inputs": [case] * 20, "outputs": [case] * 20}),
        "solutions": json.dumps([f"print({number})"]),
    }


def prompt_record(number: int) -> dict[str, Any]:
    """Three turns of about 600 characters."""
    roles = ("user", "assistant", "user")
    messages = [{"role": role, "content": f"{number}: " + "say more. " * 60} for role in roles]
    return {"id": number, "dataset": "Capybara", "context_messages": messages}


def math_record(number: int) -> dict[str, Any]:
    """About 400 characters; no record repeats another, unlike in the public file."""
    content = f"Problem {number}. " + "Let x be a number. " * 20 + "\n\nEnd with Answer: N"
    return {
        "prompt": [{"role": "user", "content": content}],
        "reward_model": {"ground_truth": str(number)},
        "extra_info": {"index": str(number)},
    }


RECORDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "apps": apps_record,
    "prompt_collection": prompt_record,
    "dapo_math": math_record,
}


def measure(kind: str, rows: int, folder: Path) -> dict[str, float]:
    """Peak resident memory in MiB and seconds of one preparation."""
    source = folder / f"{kind}-{rows}.jsonl"
    with source.open("w") as file:
        for number in range(rows):
            file.write(json.dumps(RECORDS[kind](number)) + "\n")
    flags = {"apps": ["--no-check"], "dapo_math": ["--validation", ""]}.get(kind, [])
    command = [sys.executable, __file__, "--one", kind, "--source", str(source), *flags,
               "--out", str(folder / f"{kind}-{rows}")]  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - started
    source.unlink()
    return {"peak_mib": int(done.stdout.splitlines()[-1]) / 1024, "seconds": seconds}


def prepare_and_report(kind: str, flags: list[str]) -> int:
    """The preparation itself; its peak in KiB is the last line."""
    if kind == "apps":
        from recipe.data.prepare_apps import main
    elif kind == "dapo_math":
        from recipe.data.dapo_math import main
    else:
        from recipe.data.prepare_prompt_collection import main
    status = main(flags)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.one:
        return prepare_and_report(options.one, rest)
    print("| preparation | rows | peak MiB | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for rows in options.rows:
                found = measure(kind, rows, Path(folder))
                row = (kind, f"{rows:,}", f"{found['peak_mib']:.0f}", f"{found['seconds']:.0f}")
                print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

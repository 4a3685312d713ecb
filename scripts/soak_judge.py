"""Judge thousands of hostile, benign and random programs and watch memory, processes and files.

    python scripts/soak_judge.py [--programs 10000] [--workers 2]

Exits with 1 if a verdict is not one that the program's case allows, or if memory or the
number of processes or descriptors grows after the first quarter.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import parse_problem
from reward.verdict import JudgeResult

DATA = Path(__file__).resolve().parents[1] / "tests" / "adversarial"
SLOW_SHARE = 0.02  # of programs that end by a time-out, which take a second or more each
GROWTH_BYTES = 32 << 20
SETTINGS: dict[str, Any] = {
    "timeout_s": 0.2, "memory_bytes": 256 << 20, "output_bytes": 1 << 20, "max_timeouts": 1,
    "recycle_after": 500,
}  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """What the judge and everything below it hold."""

    resident_bytes: int
    processes: int
    descriptors: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    problems = {name: parse_problem(record) for name, record in _load("problems.yaml").items()}
    chosen = _choose(options.programs, random.Random(options.seed))
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    usages: list[Usage] = []
    waiting: deque[tuple[dict[str, Any], Future[JudgeResult]]] = deque()
    start = time.monotonic()
    with Judge(JudgeConfig(workers=options.workers, **SETTINGS)) as judge:
        for number, case in enumerate(
            tqdm(chosen, unit="program", disable=not sys.stderr.isatty())
        ):
            problem = problems[case.get("problem", "sum")]
            waiting.append((case, judge.submit(problem, case["program"])))
            while len(waiting) > 4 * options.workers or (waiting and number == len(chosen) - 1):
                done, future = waiting.popleft()
                result = future.result()
                counts[result.verdict] += 1
                if result.verdict not in done["verdicts"]:
                    wrong.append(f"{done['name']}: {result.verdict} ({result.detail})")
            if number % max(1, options.programs // 20) == 0:
                usages.append(_usage())
    seconds = time.monotonic() - start
    print(f"{len(chosen)} programs in {seconds:.0f} s, {len(wrong)} unexpected verdicts")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    for line in wrong[:20]:
        print(f"  {line}")
    return 1 if wrong or _grown(usages) else 0


def _choose(count: int, chance: random.Random) -> list[dict[str, Any]]:
    cases = [*_load("hostile.yaml"), *_load("benign.yaml")]
    for case in cases:
        code = eval(case["expression"]) if "expression" in case else case["code"]
        case["program"] = code.replace("pwned", "pwned_soak").replace("/tmp/victim", "/tmp/absent")
    slow = [case for case in cases if {"time_limit", "memory_limit"} & set(case["verdicts"])]
    quick = [case for case in cases if case not in slow]
    return [chance.choice(slow if chance.random() < SLOW_SHARE else quick) for _ in range(count)]


def _load(name: str) -> Any:
    return yaml.safe_load((DATA / name).read_text())


def _usage() -> Usage:
    pids = _family(os.getpid())
    resident = descriptors = 0
    for pid in pids:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            resident += pages * os.sysconf("SC_PAGE_SIZE")
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue  # ended meanwhile, or a zygote that hides its descriptors
    return Usage(resident, len(pids), descriptors)


def _family(root: int) -> list[int]:
    """This process and its descendants."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def _grown(usages: list[Usage]) -> bool:
    """Print how the usage went; whether its lowest points rose after the first quarter.

    Lowest, since a program in the middle of its memory limit says nothing.
    """
    quarter = max(1, len(usages) // 4)
    early, late = usages[quarter : 2 * quarter] or usages, usages[-quarter:]
    grown = False
    for name, slack in (("resident_bytes", GROWTH_BYTES), ("processes", 4), ("descriptors", 80)):
        first, last = (min(getattr(u, name) for u in part) for part in (early, late))
        bad = last > first + slack
        grown = grown or bad
        print(f"{name:16}{first:14,} -> {last:14,}{'  GROWN' if bad else ''}")
    return grown


if __name__ == "__main__":
    raise SystemExit(main())

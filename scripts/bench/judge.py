"""Tests per second per core: this judge, verl's prime_code, and the floor that fork sets.

    python scripts/bench/judge.py [--seconds 3] [--skip-prime] [--json FILE]

Everything comes from one run: the contenders take turns, so that a busy machine slows all of them.
Programs have 10 tests. "fails" is a mix of wrong answers and uncaught errors in all tests. The last
sections repeat the first with 1 GiB resident in this process, as in a trainer's, and measure what
one and two workers do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import Problem, parse_input_output

TESTS = 10
CASES = {
    "inputs": [f"{i} {i + 1}\n" for i in range(TESTS)],
    "outputs": [f"{2 * i + 1}\n" for i in range(TESTS)],
}
PASSES = ["a, b = map(int, input().split())\nprint(a + b)\n"]
FAILS = [
    "a, b = map(int, input().split())\nprint(a - b)\n",
    "a, b = map(int, input().split())\nprint(a + c)\n",
]
BALLAST_BYTES = 1 << 30
TURNS = 5
FORK_LOOP = """
import os, sys, time
end, count = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    count += 1
print(count)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="time per contender and row")
    parser.add_argument("--skip-prime", action="store_true", help="without verl")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    problem = parse_input_output(CASES)
    prime = None if options.skip_prime else _prime()
    with Judge(_config(1)) as fast, Judge(_config(1, strict=True)) as strict:
        print(f"isolation level {int(fast.level)}, resident {_resident_mib()} MiB, ", end="")
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        contenders = {"fast": _ours(fast, problem), "strict": _ours(strict, problem)}
        rates = _rows(contenders, prime, options.seconds, "")
        rates |= _big_parent(contenders["fast"], prime, options.seconds)
    rates |= _floor(options.seconds)
    rates |= _scaling(problem, options.seconds)
    _ratios(rates)
    if options.json:
        options.json.write_text(json.dumps(rates, indent=1))


def _config(workers: int, strict: bool = False) -> JudgeConfig:
    return JudgeConfig(workers=workers, strict=strict, audit_fraction=0.0, program_timeout_s=600.0)


def _ours(judge: Judge, problem: Problem) -> Callable[[str], Any]:
    return lambda code: judge.judge(problem, code)


def _prime() -> Callable[[str], Any]:
    from verl.utils.reward_score.prime_code import compute_score

    return lambda code: compute_score(code, CASES, continuous=True)


def _rows(
    contenders: dict[str, Callable[[str], Any]],
    prime: Callable[[str], Any] | None,
    seconds: float,
    suffix: str,
) -> dict[str, float]:
    """Print tests/s of every contender on passing and on failing programs."""
    everyone = contenders | ({"prime_code": prime} if prime else {})
    rates: dict[str, float] = {}
    for what, programs in (("passes", PASSES), ("fails", FAILS)):
        for name, rate in _turns(everyone, programs, seconds).items():
            label = f"{name}, {what}{suffix}"
            rates[label] = rate
            print(f"{label:42}{rate:10.1f} tests/s {1000 / rate:10.3f} ms/test", flush=True)
    return rates


def _turns(
    everyone: dict[str, Callable[[str], Any]], programs: list[str], seconds: float
) -> dict[str, float]:
    """Tests per second by the median program, contenders taking turns."""
    spent: dict[str, list[float]] = {name: [] for name in everyone}
    for judge in everyone.values():
        judge(programs[0])
    while min(sum(times) for times in spent.values()) < seconds:
        for name, judge in everyone.items():
            if sum(spent[name]) >= seconds and len(spent[name]) >= 2 * len(programs):
                continue
            for program in programs:
                start = time.perf_counter()
                judge(program)
                spent[name].append(time.perf_counter() - start)
    return {name: TESTS / statistics.median(times) for name, times in spent.items()}


def _big_parent(
    judge: Callable[[str], Any], prime: Callable[[str], Any] | None, seconds: float
) -> dict[str, float]:
    """With and without 1 GiB resident here, in many short turns.

    Each contender has the turns to itself: what prime_code's forks do to a big parent (its pages
    are copied when next written) would be charged to the other.
    """
    rates: dict[str, list[float]] = {}
    for name, contender in {"fast": judge, **({"prime_code": prime} if prime else {})}.items():
        for turn in range(2 * TURNS):
            ballast = bytearray(os.urandom(1 << 20)) * (BALLAST_BYTES >> 20) if turn % 2 else b""
            label = f"{name}, passes, {'1 GiB' if ballast else 'small'} parent"
            rate = _turns({name: contender}, PASSES, seconds / TURNS)[name]
            rates.setdefault(label, []).append(rate)
            del ballast
    return _medians(rates)


def _medians(rates: dict[str, list[float]]) -> dict[str, float]:
    found = {label: statistics.median(values) for label, values in rates.items()}
    for label, rate in found.items():
        print(f"{label:42}{rate:10.1f} tests/s {1000 / rate:10.3f} ms/test", flush=True)
    return found


def _floor(seconds: float) -> dict[str, float]:
    """Processes per second that a bare interpreter forks and reaps, alone and beside another.

    What the machine gives two such loops is the most that two workers can get.
    """
    found: dict[str, float] = {}
    for count in (1, 2):
        loops = [
            subprocess.Popen(
                [sys.executable, "-S", "-c", FORK_LOOP, str(seconds)], stdout=subprocess.PIPE
            )
            for _ in range(count)
        ]
        found[f"fork floor, {count} loop(s)"] = (
            sum(int(p.communicate()[0]) for p in loops) / seconds
        )
    for label, rate in found.items():
        print(f"{label:42}{rate:10.0f} processes/s")
    return found


def _scaling(problem: Problem, seconds: float) -> dict[str, float]:
    """Throughput of one and of two workers, in short turns."""
    rates: dict[str, list[float]] = {}
    with Judge(_config(1)) as one, Judge(_config(2)) as two:
        for _ in range(2 * TURNS):
            for workers, judge in ((1, one), (2, two)):
                start = time.perf_counter()
                programs = 0
                while time.perf_counter() - start < seconds / TURNS:
                    wait([judge.submit(problem, PASSES[0]) for _ in range(20)])
                    programs += 20
                rate = programs * TESTS / (time.perf_counter() - start)
                rates.setdefault(f"{workers} worker(s), passes", []).append(rate)
    return _medians(rates)


def _ratios(rates: dict[str, float]) -> None:
    print()
    pairs = [("2 worker(s), passes", "1 worker(s), passes", 1.9)]
    pairs += [("fork floor, 2 loop(s)", "fork floor, 1 loop(s)", 2.0)]
    pairs += [("fast, passes, 1 GiB parent", "fast, passes, small parent", 1.0)]
    if "prime_code, passes" in rates:
        pairs += [("fast, passes", "prime_code, passes", 10.0)]
        pairs += [("fast, fails", "prime_code, fails", 40.0)]
        pairs += [("strict, passes", "prime_code, passes", 1.0)]
        pairs += [("strict, fails", "prime_code, fails", 1.0)]
        pairs += [("fast, passes, 1 GiB parent", "prime_code, passes, 1 GiB parent", 10.0)]
    for one, other, aim in pairs:
        print(f"{one} : {other} = {rates[one] / rates[other]:.2f} (aim {aim:g})")


def _resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


if __name__ == "__main__":
    main()

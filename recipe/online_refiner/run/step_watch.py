"""A watchdog beside a training: has a step gone on for ten times as long as the median?

`python -m recipe.online_refiner.run.step_watch RUN` reads `metrics.jsonl` as it grows, which has a
line a step, and ends with status 3 and a sentence when the step under way takes too long: a
collective operation that a lost peer never joins, a server that no longer answers. It stops
nothing; `scripts/train.sbatch` does. The start of a run and its first steps are not judged.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from recipe.online_refiner.run.metrics_log import METRICS_FILE

EXIT_HUNG = 3
STEP, VALIDATION = "timing_s/step", "timing_s/testing"
MIN_STEPS = 3
"""Steps before the median says anything: the first ones load, compile and fill caches."""


@dataclass(frozen=True)
class Limits:
    """How long a step may take: `factor` times the median, never less than `floor_s`.

    Twice the longest step so far is always allowed: of steps with a long validation, or of DAPO's
    with many refills, one may be ten times the median and well.
    """

    factor: float = 10.0
    floor_s: float = 600.0

    def step_s(self, durations_s: Sequence[float]) -> float | None:
        """Seconds that the next step may take; None if too few have been made to say."""
        if len(durations_s) < MIN_STEPS:
            return None
        usual_s = self.factor * statistics.median(durations_s)
        return max(usual_s, 2 * max(durations_s), self.floor_s)


@dataclass
class StepWatch:
    """What is known of a run's steps; times are the watcher's own, in seconds."""

    limits: Limits
    _durations_s: list[float] = field(default_factory=list)
    _step_began_s: float | None = None

    def look(self, durations_s: Sequence[float], now_s: float) -> str | None:
        """A sentence if the step under way takes too long; None otherwise.

        Args:
            durations_s: of all steps recorded until now, in seconds.
        """
        if self._step_began_s is None or list(durations_s) != self._durations_s:
            self._durations_s, self._step_began_s = list(durations_s), now_s
        limit_s, taken_s = self.limits.step_s(durations_s), now_s - self._step_began_s
        if limit_s is None or taken_s <= limit_s:
            return None
        median_s = statistics.median(durations_s)
        return (
            f"step {len(durations_s) + 1} of this file has gone on for {taken_s:.0f} s, and may "
            f"take {limit_s:.0f} s: the median of {len(durations_s)} steps is {median_s:.1f} s"
        )


def durations(path: Path) -> list[float]:
    """Seconds of each step in a metrics file, its validation included."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            data = orjson.loads(line)["data"]
        except orjson.JSONDecodeError:
            continue  # the line that is being written
        if STEP in data:
            found.append(data[STEP] + data.get(VALIDATION, 0.0))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until a step hangs; see the module."""
    defaults = Limits()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--factor", type=float, default=defaults.factor)
    parser.add_argument("--floor-s", type=float, default=defaults.floor_s)
    parser.add_argument("--every-s", type=float, default=10.0, help="seconds between two looks")
    options = parser.parse_args(arguments)
    watch = StepWatch(Limits(options.factor, options.floor_s))
    while True:
        found = watch.look(durations(options.run / METRICS_FILE), time.monotonic())
        if found is not None:
            print(f"a step hangs: {found}", flush=True)
            return EXIT_HUNG
        time.sleep(options.every_s)


if __name__ == "__main__":
    sys.exit(main())

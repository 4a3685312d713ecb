"""Reports on runs that go on: render, wait, render again.

The runs are only read. The last rendering, when all runs have finished or the reader has had
enough, is the one that stays.
"""

import time
from collections.abc import Callable
from typing import Protocol

from recipe.analysis.runs import Run, RunSet

INTERVAL_S = 30
LINGER_S = 300.0
"""How long to wait, after all runs have finished, for a further one to begin."""


class Show(Protocol):
    """Writes the report; False if there is nothing to report on."""

    def __call__(self, found: RunSet, last: bool) -> bool: ...


def keep_rendering(
    load: Callable[[], RunSet],
    show: Show,
    interval_s: float,
    linger_s: float = LINGER_S,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Render every `interval_s` seconds until all runs have finished, and `linger_s` longer in case
    another begins; Ctrl-C ends it at once. Either way the last rendering is a still page.

    Returns the exit status: 1 if there never was a run.
    """
    finished_for_s = 0.0
    try:
        while finished_for_s < max(linger_s, interval_s):
            found = load()
            show(found, last=False)
            wait(interval_s)
            done = bool(found.runs) and all(map(has_finished, found.runs))
            finished_for_s = finished_for_s + interval_s if done else 0.0
    except KeyboardInterrupt:
        print("\nstopped; writing the report as it stands", flush=True)
    return 0 if show(load(), last=True) else 1


def has_finished(run: Run) -> bool:
    """Whether the run says so, or has come to its last planned step."""
    reached = bool(run.steps) and run.total_steps is not None and run.steps[-1] >= run.total_steps
    return reached or "finished_at" in run.info

"""Time left to processes: for those that sleep, those that compute, and those that are starved."""

import pytest

from reward.sandbox.process import time_left
from reward.sandbox.wire import Limits

LIMITS = Limits(cpu_s=4.0, wall_s=9.0, total_s=30.0, memory_bytes=1, output_bytes=1)


@pytest.mark.parametrize(
    ("wall_s", "cpu_s", "left_s"),
    [
        (0.0, [0.0], 4.0),
        (1.0, [1.0], 3.0),
        (1.0, [0.5, 3.0], 1.0),  # the process that computed most counts
        (8.0, [0.0], 1.0),  # asleep: the wall clock
        (9.0, [0.0], 0.0),
        (20.0, [3.0], 1.0),  # starved: eight times that
        (29.0, [3.9], 0.1),
        (30.0, [3.9], 0.0),  # but never more than the program has in all
        (30.0, [0.0], -21.0),
    ],
)
def test_the_nearest_limit_counts(wall_s: float, cpu_s: list[float], left_s: float) -> None:
    assert time_left(LIMITS, wall_s, cpu_s) == pytest.approx(left_s)

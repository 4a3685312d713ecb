"""Numbers on the command lines: a value that makes no sense is refused where it is given."""

from __future__ import annotations

import argparse
import math
import os

MOST_WORKERS = 8
"""Unless more are asked for: data is prepared on login nodes, which are others' as well."""


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(text, 1)


def not_negative(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(text, 0)


def seconds(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def default_workers() -> int:
    """The cores that this process may use, but not all of a large machine."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)))


def _at_least(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is not at least {least}")
    return value

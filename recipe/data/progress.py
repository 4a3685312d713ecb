"""How far a preparation has come: a bar on a terminal, a line every half minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def counted(
    items: Iterable[T],
    title: str,
    unit: str,
    *,
    every_s: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
    out: TextIO | None = None,
) -> Iterator[T]:
    """The items as they are; says meanwhile how many there were.

    Args:
        unit: of one item. every_s: between two lines where `out` is no terminal.
        out: default: standard error.
    """
    out = out or sys.stderr
    if out.isatty():
        yield from tqdm(items, desc=title, unit=unit, file=out)
        return
    started = said = clock()
    count = 0
    for count, item in enumerate(items, start=1):
        yield item
        now = clock()
        if now - said >= every_s:
            said = now
            _say(out, title, unit, count, now - started)
    if said != started:
        _say(out, title, unit, count, clock() - started)


def _say(out: TextIO, title: str, unit: str, count: int, seconds: float) -> None:
    rate = count / seconds if seconds > 0 else 0.0
    print(f"{title}: {count:,} {unit}s in {seconds:.0f} s, {rate:.0f} a second", file=out)
    out.flush()

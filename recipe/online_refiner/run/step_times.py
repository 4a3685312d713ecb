"""Seconds of a step that verl's timers, which are around its methods, book to another part."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager


class StepTimes:
    """What is to be booked to other timers once verl's have stopped; one step at a time.

    Attributes:
        waited_s: seconds that the step has waited for refinements, booked to `gen`.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[str, str, float]] = []
        self.waited_s = 0.0

    @contextmanager
    def booked(self, timer: str, within: str) -> Iterator[None]:
        """The block's seconds belong to `timer`, and verl counts them to `within`."""
        began = time.perf_counter()
        yield
        self._parts.append((timer, within, time.perf_counter() - began))

    @contextmanager
    def waiting(self, within: str) -> Iterator[None]:
        """The block waits for refinements."""
        with self.booked("gen", within):
            yield
        self.waited_s += self._parts[-1][-1]

    def settle(self, timers: MutableMapping[str, float]) -> None:
        """Book them in verl's timers of the step, which is over."""
        for timer, within, seconds in self._parts:
            timers[timer] = timers.get(timer, 0.0) + seconds
            timers[within] -= seconds
        self._parts.clear()
        self.waited_s = 0.0

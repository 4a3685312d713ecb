"""Threads that do queued work in the order of its turn."""

import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

PATIENCE = 4.0
T = TypeVar("T")


class Workers:
    """Does `count` pieces of work at once; thread-safe.

    What is expected to be quick goes first, but nothing waits for ever: a turn comes by the time it
    was queued plus PATIENCE times the time it is expected to take.
    """

    def __init__(self, count: int) -> None:
        self._closed = False
        self._queue: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._threads = [
            threading.Thread(target=self._work, name=f"judge-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, expected_s: float, work: Callable[[], T]) -> "Future[T]":
        """Queue `work`. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the judge is closed")
        future: Future[T] = Future()
        turn = time.monotonic() + PATIENCE * expected_s
        self._queue.put(_Job(turn, next(self._numbers), future, work))
        return future

    def close(self) -> None:
        """Finish what is queued, then end the threads."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._queue.put(_Job(float("inf"), next(self._numbers)))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            if job.work is None:
                return
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(job.work())
            except BaseException as error:  # handed to whoever awaits the result
                job.future.set_exception(error)


@dataclass(frozen=True, order=True)
class _Job:
    """A queued piece of work, in the order of its turn; without work, the order to stop."""

    turn_s: float
    number: int
    future: "Future[Any]" = field(default_factory=Future, compare=False)
    work: Callable[[], Any] | None = field(default=None, compare=False)

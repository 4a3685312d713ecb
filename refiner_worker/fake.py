"""A deterministic refiner engine for tests: the interface of verl's client, without an engine."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FakeOutput:
    """What `FakeGenerator` answers: the part of verl's `TokenOutput` that the client reads."""

    token_ids: list[int]


@dataclass
class FakeGenerator:
    """Answers each prompt with `answer(prompt_ids)`; waits for `gate` first where one is given.

    Attributes:
        answer: from prompt ids to output ids; may raise, to play a failing engine.
        gate: an event that holds every answer back until it is set.
        requests: the prompts received, in order.
        in_flight_peak: the largest number of requests that were under way at once.
    """

    answer: Callable[[list[int]], list[int]]
    gate: asyncio.Event | None = None
    requests: list[list[int]] = field(default_factory=list)
    in_flight_peak: int = 0
    _in_flight: int = 0

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> FakeOutput:
        """Answer one request; see the class."""
        self.requests.append(prompt_ids)
        self._in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self._in_flight)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return FakeOutput(self.answer(prompt_ids))
        finally:
            self._in_flight -= 1

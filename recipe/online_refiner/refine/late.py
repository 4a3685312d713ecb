"""Refinements that go on after their rollouts are stored, until the trainer asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from recipe.online_refiner.records import Refinement, Rollout

Refined = Coroutine[Any, Any, Refinement | None]


class LateRefinements:
    """The refinements of one worker's rollouts that are under way or not yet asked for."""

    def __init__(self) -> None:
        self._tasks: dict[int, dict[str, asyncio.Task[Refinement | None]]] = {}

    def start(self, step: int, key: str, refined: Refined) -> None:
        """Refine the rollout of this row in the background.

        Args:
            step: the training step that the rollout is made for.
        """
        self._tasks.setdefault(step, {})[key] = asyncio.get_running_loop().create_task(refined)

    async def of_step(self, step: int) -> dict[str, Refinement]:
        """The step's refinements by the key of their rollout's row, once all are settled.

        Raises what a refinement raised. Those of this step and of earlier ones are then forgotten.
        """
        tasks = self._tasks.get(step, {})
        settled = await asyncio.gather(*tasks.values())
        for past in [number for number in self._tasks if number <= step]:
            del self._tasks[past]
        return {key: one for key, one in zip(tasks, settled, strict=True) if one is not None}


def joined(rollouts: Sequence[Rollout], found: Mapping[str, Refinement]) -> list[Rollout]:
    """The rollouts with their refinements, by the key of their row."""
    return [replace(one, refinement=found.get(one.key)) for one in rollouts]

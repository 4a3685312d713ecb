"""Agent loops that refine in some steps and not in others, so that one training shows both.

The class is given to the program's own entry point by verl's key
`actor_rollout_ref.rollout.agent.agent_loop_manager_class`; nothing else of the training differs.
Each rollout also leaves the times at which it was judged and settled, from which the phases of a
step are read (`timeline.py`).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ray

from recipe.acceptance.timeline import ROLLOUT_TIMES_FILE, refines
from recipe.online_refiner.agent_loop import RefiningManager, _RefiningWorker
from recipe.online_refiner.plan import RefiningPlan
from recipe.online_refiner.records import Refinement, Score
from refiner_worker.engine import Generator


class _AlternatingWorker(_RefiningWorker):
    """A refining worker that leaves out the steps that `refines` does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Ray ships inherited methods by value; see `agent_loop._RefiningWorker`.
        super().__init__(*args, **kwargs)
        self._configured = self._refining

    def set_refiner(self, generator: Generator, plan: RefiningPlan) -> None:
        """Refine from now on, in the steps that are to be refined."""
        super().set_refiner(generator, plan)
        self._configured = self._refining

    async def _refine(
        self, output: Any, score: Score, feedback: str, kwargs: dict[str, Any]
    ) -> Refinement | None:
        step, judged_at_s = int(kwargs["global_steps"]), time.time()
        # One step's rollouts are all settled before those of the next one begin.
        self._refining = self._configured if refines(step) else None
        refinement = await super()._refine(output, score, feedback, kwargs)
        entry = {"step": step, "judged_at_s": judged_at_s, "settled_at_s": time.time()}
        with (Path(self.config.run.dir) / ROLLOUT_TIMES_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return refinement


class AlternatingManager(RefiningManager):
    """The manager of such workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(_AlternatingWorker)

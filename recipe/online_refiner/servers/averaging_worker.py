"""verl's actor worker that can also keep a moving average of its weights on disk."""

from pathlib import Path
from typing import Any

import torch
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker

from refiner_worker.moving_average import average_into


class AveragingWorker(ActorRolloutRefWorker):
    """verl's worker with one method more, called on all ranks together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Ray ships inherited methods by value; verl's __init__, shipped so, would call super() on a
        # copy of its class that this object is no instance of.
        super().__init__(*args, **kwargs)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def average_weights(self, folder: str, before: str | None, decay: float) -> None:
        """Average the actor's weights into a folder that all nodes see; rank 0 writes it.

        Args:
            folder: where to. before: the average so far; None for the initial model.
            decay: of the average so far, in [0, 1].
        """
        weights, _ = self.actor.engine.get_per_tensor_param()
        try:
            if torch.distributed.get_rank() == 0:
                so_far = Path(before or self.actor.engine.model_config.local_path)
                average_into(Path(folder), weights, so_far, decay)
        finally:
            # All ranks gather each tensor together, also those that nobody writes any more.
            for _ in weights:
                pass

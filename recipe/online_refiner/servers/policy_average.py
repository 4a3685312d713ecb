"""A refiner that follows the policy: where its averaged weights lie, in runs and checkpoints."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

FOLDER = "refiner_average"


class PolicyAverage:
    """The moving average of one training, a model folder on disk once there is one.

    Args:
        run_dir: the run's folder, which all nodes see.
    """

    def __init__(self, run_dir: str) -> None:
        self._own = Path(run_dir).absolute() / FOLDER
        self.path: Path | None = None

    def follow(self, actor: Any, decay: float) -> None:
        """Average the actor's weights in.

        Args:
            actor: verl's worker group of `AveragingWorker`.
            decay: of the average so far.
        """
        before = None if self.path is None else str(self.path)
        actor.average_weights(str(self._own), before, decay)
        self.path = self._own

    def save(self, checkpoint: Path) -> None:
        """Put it into a checkpoint's folder, by hard links if the file system has them.

        Those of older checkpoints go if verl has thrown the actor's weights away.
        """
        if self.path is None:
            return
        target = checkpoint / FOLDER
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.path, target, copy_function=_link_or_copy)
        for older in checkpoint.parent.glob(f"global_step_*/{FOLDER}"):
            if older != target and not (older.parent / "actor").exists():
                shutil.rmtree(older)

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint's, if it has one."""
        folder = checkpoint.absolute() / FOLDER
        self.path = folder if folder.is_dir() else None


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

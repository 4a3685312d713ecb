"""Where verl's trackers write their files: below the run's folder.

Each has a default of its own below the current folder, which for a job of Ray's is a temporary copy
of the checkout on one of the nodes.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path


def point_trackers(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Set where trackers write, in the process that has them; what is set already stays.

    Args:
        folder: the run's; W&B falls back to another one where it does not exist.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    places = {
        "TENSORBOARD_DIR": f"{folder}/tensorboard",
        "WANDB_DIR": f"{folder}",
        "SWANLAB_LOG_DIR": f"{folder}/swanlab",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "VERL_FILE_LOGGER_ROOT": f"{folder}",
    }
    for variable, place in places.items():
        environment.setdefault(variable, place)

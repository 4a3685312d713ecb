"""A request from outside to save a checkpoint after the step under way: a file in the run's folder.

`scripts/train.sbatch` makes it when a job's time is nearly up. The trainer asks after each step,
saves, and takes it away; whoever asked sees the step in verl's tracker file, which is written last.
"""

from pathlib import Path

REQUEST_FILE = "save_requested"


def is_save_requested(run_folder: Path) -> bool:
    """Whether somebody waits for a checkpoint."""
    return (run_folder / REQUEST_FILE).exists()


def mark_saved(run_folder: Path) -> None:
    """Take the request away; nothing happens if there is none."""
    (run_folder / REQUEST_FILE).unlink(missing_ok=True)

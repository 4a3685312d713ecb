"""What a run leaves behind besides verl's own: JSON lines that outlive an interruption."""

from pathlib import Path
from typing import Any

import orjson

METRICS_FILE = "metrics.jsonl"
EPISODES_FILE = "episodes.jsonl"
ROLLOUTS_FILE = "rollouts.jsonl"
RECORD_FILES = (METRICS_FILE, EPISODES_FILE, ROLLOUTS_FILE)
"""Files of one record a line, each with its step."""


class RecordedTracking:
    """verl's tracking, with every record also appended to a JSON-lines file.

    verl's own file logger empties its file at each start, so an interrupted run would lose what it
    had logged.
    """

    def __init__(self, tracking: Any, path: Path) -> None:
        self._tracking = tracking
        self._path = path

    def log(self, data: dict[str, Any], step: int) -> None:
        """Log one step to every backend and to the file."""
        self._tracking.log(data=data, step=step)
        line = orjson.dumps({"step": step, "data": data}, option=orjson.OPT_SERIALIZE_NUMPY)
        with self._path.open("ab") as file:
            file.write(line + b"\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracking, name)


def drop_after(path: Path, step: int) -> None:
    """Leave the file's records up to `step`, from which a resumed run goes on; drop torn lines.

    The steps after the checkpoint are trained again, and would otherwise be recorded twice. The
    file is never in memory as a whole, and either the old or the new one is there.
    """
    if not path.exists():
        return
    rest = path.with_name(f"{path.name}.partial")
    with path.open("rb") as old, rest.open("wb") as new:
        new.writelines(line.rstrip(b"\n") + b"\n" for line in old if _step_of(line) <= step)
    rest.replace(path)


def _step_of(line: bytes) -> float:
    try:
        return orjson.loads(line)["step"]
    except orjson.JSONDecodeError:
        # The line that was being written when the run was killed.
        return float("inf")

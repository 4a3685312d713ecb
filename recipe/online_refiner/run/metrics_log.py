"""What a run leaves behind besides verl's own: JSON lines that outlive an interruption."""

from pathlib import Path
from typing import Any

import orjson

METRICS_FILE = "metrics.jsonl"
EPISODES_FILE = "episodes.jsonl"


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
    """Keep the file's records up to `step`, from which a resumed run goes on; drop torn lines.

    The steps after the checkpoint are trained again, and would otherwise be recorded twice.
    """
    if not path.exists():
        return
    kept = [line for line in path.read_bytes().splitlines() if _step_of(line) <= step]
    path.write_bytes(b"".join(line + b"\n" for line in kept))


def _step_of(line: bytes) -> float:
    try:
        return orjson.loads(line)["step"]
    except orjson.JSONDecodeError:
        # The line that was being written when the run was killed.
        return float("inf")

"""What a run leaves behind besides verl's own: metrics.jsonl, kept across interruptions."""

from pathlib import Path
from typing import Any

import orjson


class RecordedTracking:
    """verl's tracking, with every record also appended to a JSON-lines file.

    verl's own file logger truncates its file at each start, so an interrupted run would lose what
    it had logged. After a resume steps may stand twice; the last one counts.
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

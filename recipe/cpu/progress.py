"""How far a training is, read from the metrics.jsonl that it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

SHOWN = {"critic/score/mean": "reward", "constraint/improvement_ratio": "improved"}


class Progress:
    """Training steps as a progress bar on a terminal, as one line a step elsewhere.

    Args:
        name: what is trained. steps: steps in all. metrics: the metrics.jsonl to follow.
    """

    def __init__(self, name: str, steps: int, metrics: Path) -> None:
        self._name = name
        self._steps = steps
        self._metrics = metrics
        self._seen = last_step(metrics)
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps,
            desc=f"  {name}",
            unit="step",
            initial=max(0, self._seen),
            disable=not self._is_terminal,
        )
        self._say("starting")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def update(self) -> None:
        """Show the last step that has been logged."""
        record = _last_record(self._metrics)
        if record is None or record["step"] <= self._seen:
            self._bar.refresh()
            return
        self._seen = record["step"]
        data = record["data"]
        self._say(" ".join(f"{SHOWN[name]}={data[name]:.2f}" for name in SHOWN if name in data))

    def _say(self, text: str) -> None:
        if self._is_terminal:
            self._bar.n = max(0, self._seen)
            self._bar.set_postfix_str(text)
        else:
            print(f"  {self._name}: step {max(0, self._seen)}/{self._steps} {text}", flush=True)


def last_step(metrics: Path) -> int:
    """The last step in a metrics file; -1 if nothing has been logged."""
    record = _last_record(metrics)
    return record["step"] if record is not None else -1


def _last_record(metrics: Path) -> dict[str, Any] | None:
    if not metrics.exists():
        return None
    for line in reversed(metrics.read_bytes().splitlines()):
        try:
            return json.loads(line)
        except ValueError:
            # The last line of a run that was killed, or is writing at this moment.
            continue
    return None

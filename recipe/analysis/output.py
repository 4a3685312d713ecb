"""Files of a report, each written whole: a reader never meets half of one, and a killed report
leaves the file of before.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path


def write_whole(path: Path, content: bytes) -> Path:
    """Put `content` at `path` in one step, through a hidden file beside it; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a table in UTF-8; what UTF-8 cannot hold (half of a surrogate pair) becomes "?"."""
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return write_whole(path, text.getvalue().encode("utf-8", "replace"))

"""Writing prepared data: whole or not at all, and untouched if nothing would change."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_parquet(path: Path, table: pa.Table) -> None:
    """The table as parquet; the same table gives the same bytes."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_if_changed(path, buffer.getvalue().to_pybytes())


def write_json_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    write_if_changed(path, "".join(json.dumps(entry) + "\n" for entry in entries).encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """One indented JSON object."""
    write_if_changed(path, (json.dumps(content, indent=2) + "\n").encode())


def write_if_changed(path: Path, content: bytes) -> None:
    """Replace the file at once; one that already has this content keeps its time stamp."""
    if path.exists() and path.read_bytes() == content:
        return
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)

"""Writing prepared data: row by row, whole or not at all, untouched if nothing would change."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 1000
GROUP_CHARS = 32 << 20
"""A parquet file is written in groups of at most so many rows, and about so many characters."""


class OutputError(ValueError):
    """The folder to write into cannot be used; the message says why."""


def check_writable(folder: Path) -> None:
    """Raises OutputError if files could not be written into `folder`, which may not exist yet."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"--out {folder}: {there} is not a folder. Fix: another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"--out {folder}: {there} is not writable. Fix: another --out")


class _Partial:
    """A file that takes its place when it is whole, and is removed where it does not get so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_suffix(path.suffix + ".partial")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._close()
            if kind is None:
                replace_if_changed(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def _close(self) -> None:
        raise NotImplementedError


class RowFile(_Partial):
    """Rows to a parquet file, a group at a time; the same rows give the same bytes."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        super().__init__(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = schema
        self._writer = pq.ParquetWriter(self._partial, schema)
        self._rows: list[Mapping[str, Any]] = []
        self._chars = 0

    def add(self, row: Mapping[str, Any], chars: int) -> None:
        """Write a row, whose texts have about so many characters."""
        self._rows.append(row)
        self._chars += chars
        if len(self._rows) >= GROUP_ROWS or self._chars >= GROUP_CHARS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._chars = [], 0

    def _close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


class LineFile(_Partial):
    """JSON objects to a file, one a line.

    Args:
        split: the entries of this split, by their `split`, take the place of the file's earlier
            ones, and those of other splits stay. None: nothing of an earlier file stays.
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        super().__init__(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._split = split
        self._own = path.with_suffix(path.suffix + ".new")
        self._file: BinaryIO = self._own.open("wb")

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write an entry."""
        self._file.write(json.dumps(entry).encode() + b"\n")

    def _close(self) -> None:
        self._file.close()
        with self._partial.open("wb") as whole:
            placed = False
            if self._split is not None and self._path.exists():
                placed = self._merge(whole)
            if not placed:
                self._copy_own(whole)
        self._own.unlink()

    def _merge(self, whole: BinaryIO) -> bool:
        placed = False
        with self._path.open("rb") as before:
            for line in before:
                split = _split_of(line)
                if split == self._split and not placed:
                    placed = True
                    self._copy_own(whole)
                elif split != self._split and (self._path.parent / f"{split}.parquet").exists():
                    whole.write(line)
        return placed

    def _copy_own(self, whole: BinaryIO) -> None:
        with self._own.open("rb") as own:
            shutil.copyfileobj(own, whole)


def _split_of(line: bytes) -> str | None:
    try:
        return str(json.loads(line)["split"])
    except (ValueError, KeyError, TypeError):
        return None


def update_json(path: Path, part: Mapping[str, Any]) -> None:
    """Set the keys of `part`, which are splits; those of splits that are still there stay."""
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        before = {}
    there = {
        split: content
        for split, content in (before if isinstance(before, dict) else {}).items()
        if split in part or (path.parent / f"{split}.parquet").exists()
    }
    write_json(path, there | dict(part))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """One indented JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    replace_if_changed(partial, path)


def replace_if_changed(partial: Path, path: Path) -> None:
    """Put a file in its place at once; one that has this content already keeps its time stamp."""
    if path.exists() and filecmp.cmp(partial, path, shallow=False):
        partial.unlink()
    else:
        os.replace(partial, path)

"""Where raw records come from: problem folders, JSON Lines, parquet, or a Hugging Face id.

A source that holds several files or folders is read in sorted order, so that the same source gives
the same rows. A line or folder that cannot be read comes out as `Unreadable`, never as an exception
that would end the preparation at problem 3,000.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reward import jsontext

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FOLDER_JSON = ("input_output", "solutions")


class SourceError(ValueError):
    """The source as a whole cannot be read; the message says what was looked for."""


@dataclass(frozen=True)
class Unreadable:
    """A problem whose files or line could not be read, with the reason."""

    problem_id: str
    reason: str


Item = dict[str, Any] | Unreadable


def open_source(source: str, splits: Sequence[str]) -> dict[str, Iterator[Item]]:
    """The items of each split of `source`, lazily.

    Raises SourceError if a split is missing, or two would be made of the same problems.
    """
    path = _local(source)
    places = {split: _locate(path, split) for split in splits}
    for first, second in combinations(splits, 2):
        if set(places[first]) & set(places[second]):
            raise SourceError(
                f"--source {source}: splits {first!r} and {second!r} are the same problems; give a "
                f"source with both (folders {first}/ and {second}/, or {first}.jsonl and "
                f"{second}.jsonl), or only one of --splits"
            )
    return {split: _read(paths) for split, paths in places.items()}


def open_files(source: str) -> Iterator[Item]:
    """The items of all data files of `source`, whatever they are called, lazily.

    Raises SourceError if there is none.
    """
    path = _local(source)
    files = [path] if path.is_file() else sorted(q for q in path.rglob("*") if _is_data(q))
    if not files:
        raise SourceError(f"--source {source}: no .jsonl or .parquet file in it")
    return _read(files)


def _is_data(path: Path) -> bool:
    return path.suffix in _FILE_READERS and path.is_file()


def _local(source: str) -> Path:
    """The source's place on this machine, downloaded first where it is a Hugging Face id."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if path.suffix or not _HUB_ID.fullmatch(source):
        raise SourceError(
            f"--source {source}: no such file or folder, and not a Hugging Face id (owner/name)"
        )
    return download(source)


def download(hub_id: str) -> Path:
    """The data files of a Hugging Face dataset, in the local cache."""
    from huggingface_hub import snapshot_download

    patterns = ["*.jsonl", "*.parquet", "**/*.jsonl", "**/*.parquet"]
    try:
        return Path(snapshot_download(hub_id, repo_type="dataset", allow_patterns=patterns))
    except Exception as error:  # any of the hub's own errors, or the network's
        raise SourceError(
            f"--source {hub_id}: not downloaded ({type(error).__name__}: {error}); "
            "check the name and the network, or download it elsewhere and give the folder"
        ) from error


def _locate(path: Path, split: str) -> list[Path]:
    """The files, or problem folders, that make up the split."""
    if path.is_file():
        return [path]
    here = path / split if (path / split).is_dir() else path
    folders = sorted(q.parent for q in here.glob("*/question.txt"))
    if folders:
        return folders
    for pattern in (f"{split}*", f"*/{split}*", "*"):
        files = sorted(q for q in here.glob(pattern) if _is_data(q))
        if files and (pattern != "*" or here != path):
            return files
    raise SourceError(
        f"--source {path}: nothing for split {split!r}: looked for NNNN/question.txt (there or in "
        f"{split}/) and for {split}*.jsonl or {split}*.parquet"
    )


def _read(paths: list[Path]) -> Iterator[Item]:
    for path in paths:
        if path.is_dir():
            yield _read_folder(path)
        elif path.suffix in _FILE_READERS:
            yield from _FILE_READERS[path.suffix](path)
        else:
            raise SourceError(f"{path}: expected .jsonl or .parquet, or a folder of problems")


def _read_folder(folder: Path) -> Item:
    """One problem in APPS's own layout."""
    try:
        metadata = _read_json(folder / "metadata.json", default={})
        if not isinstance(metadata, dict):
            return Unreadable(folder.name, "metadata.json is not an object")
        record = {
            "problem_id": folder.name,
            "question": (folder / "question.txt").read_text(encoding="utf-8"),
            "starter_code": _read_text(folder / "starter_code.py"),
            "difficulty": metadata.get("difficulty"),
            "url": metadata.get("url"),
        }
        record |= {name: _read_text(folder / f"{name}.json") or None for name in _FOLDER_JSON}
        return record
    except (OSError, ValueError) as error:
        return Unreadable(folder.name, f"{type(error).__name__}: {error}")


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _read_json(path: Path, default: Any) -> Any:
    return jsontext.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def _read_jsonl(path: Path) -> Iterator[Item]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _read_line(line, f"{path.name}:{number}")


def _read_line(line: bytes, place: str) -> Item:
    try:
        record = jsontext.loads(line)
    except (ValueError, RecursionError) as error:
        return Unreadable(place, f"not valid JSON: {error}")
    if not isinstance(record, dict):
        return Unreadable(place, f"not an object but {type(record).__name__}")
    return record


def _read_parquet(path: Path) -> Iterator[Item]:
    try:
        # Read in pieces: a row group of the hub's files may be the whole file.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except Exception as error:  # pyarrow raises several kinds for a file that is not parquet
        raise SourceError(f"{path}: not a readable parquet file: {error}") from error
    for batch in file.iter_batches(batch_size=64):
        yield from batch.to_pylist()


_FILE_READERS: dict[str, Callable[[Path], Iterator[Item]]] = {
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}

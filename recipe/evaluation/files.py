"""Reading and writing files of records: benchmarks in any usual container, and append-only logs."""

import fcntl
import gzip
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recipe.evaluation.errors import EvaluationError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")


def read_records(path: Path, key: str) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """Each record with its place in the file; what is no record comes as the reason why.

    Raises:
        EvaluationError: the file is missing, of another kind, or broken as a whole. `key` is what
            the message calls it.
    """
    if not path.is_file():
        raise EvaluationError(f"{key}: no such file; give the path of a local copy")
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".json":
            yield from _json_list(path)
        elif path.name.endswith((".jsonl", ".jsonl.gz")):
            yield from _json_lines(path)
        else:
            kinds = ", ".join(SUFFIXES)
            raise EvaluationError(f"{key}: not a file of a known kind; use one of {kinds}")
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EvaluationError(f"{key}: cannot be read ({error}); fetch it again") from error


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    try:
        rows = pq.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise OSError(str(error)) from error
    for number, row in enumerate(rows):
        yield f"row {number}", row


def _json_list(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    records = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(records, list):
        raise OSError(f"a {type(records).__name__}, not a list")
    for number, record in enumerate(records):
        yield f"record {number}", _object(record)


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", _parsed(line)


def _parsed(line: str) -> Mapping[str, Any] | str:
    try:
        return _object(json.loads(line))
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"


def _object(record: Any) -> Mapping[str, Any] | str:
    return record if isinstance(record, dict) else f"a {type(record).__name__}, not an object"


class Log:
    """A file of JSON lines that is only ever appended to, one write a record.

    Opening it drops a torn last line, which a killed writer leaves behind; `torn` says so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.torn = _drop_torn_line(path)

    def records(self) -> list[dict[str, Any]]:
        """All records.

        Raises:
            EvaluationError: a line that is not the last is no record, so more than a kill happened.
        """
        return read_log(self.path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record; it survives the end of this process."""
        with self.path.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log without changing it; a torn last line is left out.

    Raises:
        EvaluationError: another line is no record.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = content.split(b"\n")[:-1]
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parsed(line.decode("utf-8", "replace"))
        if isinstance(record, str):
            raise EvaluationError(f"{path}:{number}: {record}; delete that line and start again")
        records.append(dict(record))
    return records


def _drop_torn_line(path: Path) -> bool:
    if not path.exists():
        return False
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return False
    os.truncate(path, whole)
    return True


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep others from writing into `folder` meanwhile; the kernel lets go when a process dies.

    Raises:
        EvaluationError: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EvaluationError(
                f"--out {folder}: another evaluation writes there; wait for it, or use "
                "another folder"
            ) from None
        yield

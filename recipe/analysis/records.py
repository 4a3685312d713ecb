"""Tolerant reading of JSON files that a killed run may have left in any state.

Nothing here raises on bad content: what cannot be used becomes a `Finding`, which the reports
print.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

RECORD_START = b'{"step"'
"""How both writers begin a line. Inside a JSON string the quotes would be escaped, so these bytes
never occur there.
"""

MAX_NUMBERS_LISTED = 5
MAX_PATHS_LISTED = 3
TAIL_BYTES = 4096
"""More than a line differs in from another: episodes begin with a step and an id of their own."""


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the figures has to know about a file, or with `path` None about
    all runs together.
    """

    path: Path | None
    message: str

    def __str__(self) -> str:
        return f"{self.path or 'all runs'}: {self.message}"


def in_lines(findings: Iterable[Finding]) -> list[str]:
    """A line for each message, with the files that it is about, however many runs have it."""
    paths: dict[str, list[Path | None]] = {}
    for one in findings:
        paths.setdefault(one.message, []).append(one.path)
    return [f"{_name_paths(found)}: {message}" for message, found in paths.items()]


def _name_paths(paths: Sequence[Path | None]) -> str:
    listed = ", ".join(str(path or "all runs") for path in paths[:MAX_PATHS_LISTED])
    more = len(paths) - MAX_PATHS_LISTED
    return listed + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Line:
    """One line of a JSONL file: its record, or the problem with it, or both where a record could be
    salvaged.

    `offset` is the byte at which the record starts.
    """

    number: int
    offset: int
    record: dict[str, Any] | None
    problem: str | None


@dataclass(frozen=True)
class Mark:
    """How far a growing file has been read, in whole lines; `tail` is the end of the last one."""

    offset: int = 0
    lines: int = 0
    tail: bytes = b""

    def is_in(self, path: Path) -> bool:
        """Whether the file still holds what was read, as far as its size and the tail tell."""
        with path.open("rb") as file:
            file.seek(self.offset - len(self.tail))
            return file.read(len(self.tail)) == self.tail


def read_jsonl(path: Path) -> Iterator[Line]:
    """Yield every non-blank line of `path`; raises only `OSError`, where it cannot be opened."""
    for line, _ in read_jsonl_from(path, Mark()):
        yield line


def read_jsonl_from(path: Path, start: Mark) -> Iterator[tuple[Line, Mark]]:
    """Yield the non-blank lines from `start`, each with the mark behind it.

    A last line without its line feed may still be growing: the mark stays before it.
    """
    mark = start
    with path.open("rb") as file:
        file.seek(start.offset)
        for raw in file:
            number, offset = mark.lines + 1, mark.offset
            if raw.endswith(b"\n"):
                mark = Mark(offset + len(raw), number, raw[-TAIL_BYTES:])
            if raw.strip():
                yield _parse_line(raw, number, offset), mark


def read_record_at(path: Path, offset: int) -> dict[str, Any]:
    """Read again the record that `read_jsonl` reported at `offset`."""
    with path.open("rb") as file:
        file.seek(offset)
        record = json.loads(file.readline())
    if not isinstance(record, dict):
        raise ValueError(
            f"{path}: no JSON object at byte {offset}; the file changed while it was read"
        )
    return record


def _parse_line(raw: bytes, number: int, offset: int) -> Line:
    record = _parse_object(raw)
    if record is not None:
        return Line(number, offset, record, None)
    if not raw.endswith(b"\n"):
        return Line(number, offset, None, "torn last line, as a killed run leaves it; ignored")
    cut = raw.rfind(RECORD_START)
    salvaged = _parse_object(raw[cut:]) if cut > 0 else None
    if salvaged is not None:
        return Line(
            number,
            offset + cut,
            salvaged,
            "torn line with a whole record after it; the record is used",
        )
    return Line(number, offset, None, "not a JSON object; ignored")


def _parse_object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(raw)
    except ValueError:
        # NaN, numbers beyond 64 bits and halves of surrogate pairs, which Python's own writer lets
        # through and its reader takes.
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            # The content is not ours to trust: broken JSON, broken UTF-8, absurd nesting.
            return None
    return value if isinstance(value, dict) else None


def read_object(path: Path) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """Read one JSON object; an absent or broken file gives an empty one and a finding."""
    try:
        record = _parse_object(path.read_bytes())
    except FileNotFoundError:
        return {}, (Finding(path, "missing"),)
    except OSError as error:
        return {}, (Finding(path, f"cannot be read ({error.strerror})"),)
    if record is None:
        return {}, (Finding(path, "not a JSON object; ignored"),)
    return record, ()


def condense(path: Path, problems: Iterable[tuple[int, str]]) -> tuple[Finding, ...]:
    """One finding per kind of problem, with the line numbers it concerns: a file of bad lines stays
    one line to read.
    """
    lines_by_problem: dict[str, list[int]] = {}
    for number, problem in problems:
        lines_by_problem.setdefault(problem, []).append(number)
    return tuple(
        Finding(path, f"{_name_lines(numbers)}: {problem}")
        for problem, numbers in lines_by_problem.items()
    )


def _name_lines(numbers: list[int]) -> str:
    listed = ", ".join(str(number) for number in numbers[:MAX_NUMBERS_LISTED])
    more = len(numbers) - MAX_NUMBERS_LISTED
    plural = "s" if len(numbers) > 1 else ""
    return f"line{plural} {listed}" + (f" and {more} more" if more > 0 else "")

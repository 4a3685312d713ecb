"""The index of a run's episodes: SQLite with full-text search, in a cache folder, grown with the
run's files.

The files stay where the texts are: the index holds numbers, places in the files and the words. It
is written by one thread and read by any, and can be deleted at any time.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.analysis.records import Mark, read_jsonl_from, read_record_at
from recipe.analysis.viewer.rows import COLUMNS, NO_STEP, Row, Source, Texts, read_row, values_of

SCHEMA_VERSION = 2
BATCH_ROWS = 1000
SORTED = ("gain", "edits", "length", "refined_length", "ce", "reward", "refined_reward")
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS episodes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, {", ".join(COLUMNS)}
);
CREATE INDEX IF NOT EXISTS by_group ON episodes (step, uid);
CREATE INDEX IF NOT EXISTS by_problem ON episodes (problem, step);
CREATE INDEX IF NOT EXISTS by_place ON episodes (source, offset);
{"".join(f"CREATE INDEX IF NOT EXISTS by_{key} ON episodes ({key});" for key in SORTED)}
CREATE INDEX IF NOT EXISTS by_outcome ON episodes (outcome);
CREATE INDEX IF NOT EXISTS by_verdict ON episodes (verdict);
CREATE INDEX IF NOT EXISTS by_reading ON episodes (reading);
CREATE INDEX IF NOT EXISTS by_refined_verdict ON episodes (refined_verdict);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (
    prompt, answer, refined, content='', tokenize="unicode61 tokenchars '_'"
);
CREATE TABLE IF NOT EXISTS marks (
    source INTEGER PRIMARY KEY, offset INTEGER, lines INTEGER, tail BLOB, last_step INTEGER
);
CREATE TABLE IF NOT EXISTS problems (source INTEGER, line INTEGER, message TEXT);
"""
INSERT = f"INSERT INTO episodes ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


@dataclass(frozen=True)
class State:
    """How far an index is: its episodes, last step, and bytes of the files that are not read."""

    episodes: int
    first_step: int
    last_step: int
    behind_bytes: int


def cache_folder() -> Path:
    """The user's cache folder, or a temporary one if that cannot be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "online-refiner" / "viewer"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="online-refiner-viewer-"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp())


class Overtaken(Exception):
    """Another process has written to the index since this one looked."""


class RunIndex:
    """The index of one run folder; `cache` is the folder of its database."""

    def __init__(self, run: Path, cache: Path) -> None:
        self.run = run
        name = hashlib.sha256(str(run.resolve()).encode("utf-8", "replace")).hexdigest()[:24]
        self.database = cache / f"{name}-v{SCHEMA_VERSION}.sqlite"
        self._create()

    def _create(self) -> None:
        try:
            with self.connect() as connection:
                connection.executescript(SCHEMA)
        except sqlite3.DatabaseError:
            # Not a database, or one that a killed process left in pieces: it is only a cache.
            self._remove()
            with self.connect() as connection:
                connection.executescript(SCHEMA)

    def _remove(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self.database.with_name(self.database.name + ending).unlink(missing_ok=True)

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """A connection that commits at the end of the block and is closed."""
        with closing(sqlite3.connect(self.database, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with connection:
                yield connection

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows of a SELECT."""
        with self.connect() as connection:
            return connection.execute(sql, values).fetchall()

    def update(self, most_rows: int | None = None) -> int:
        """Read what the files have gained, `most_rows` lines at most; return the lines read.

        An index that was deleted or broken meanwhile is made anew and grows from the beginning.
        """
        done = 0
        for source in Source:
            left = None if most_rows is None else most_rows - done
            if left is None or left > 0:
                try:
                    done += self._update(source, left)
                except Overtaken:
                    continue
                except sqlite3.DatabaseError as error:
                    if "locked" in str(error):
                        continue
                    self._create()
        return done

    def _update(self, source: Source, most_rows: int | None) -> int:
        path = self.run / source.file
        if not path.exists():
            return 0
        mark, last_step = self._mark(source)
        if not mark.is_in(path):
            self._forget(source)
            mark, last_step = Mark(), -1
        done = 0
        batch = Batch(source, mark, last_step)
        for line, after in read_jsonl_from(path, mark):
            if after.lines < line.number:
                break
            batch.add(line.record, line.offset, line.number, line.problem)
            done += 1
            mark = after
            if len(batch.rows) >= BATCH_ROWS or done == most_rows:
                batch = self._write(batch, mark)
            if done == most_rows:
                break
        if done:
            self._write(batch, mark)
        return done

    def _mark(self, source: Source) -> tuple[Mark, int]:
        rows = self.query("SELECT * FROM marks WHERE source = ?", (source,))
        if not rows:
            return Mark(), -1
        (row,) = rows
        return Mark(row["offset"], row["lines"], row["tail"]), row["last_step"]

    def _forget(self, source: Source) -> None:
        """Drop everything from a file that was rewritten; its words stay and match nothing."""
        with self.connect() as connection:
            for table in ("episodes", "marks", "problems"):
                connection.execute(f"DELETE FROM {table} WHERE source = ?", (source,))

    def _write(self, batch: "Batch", mark: Mark) -> "Batch":
        """Write a batch in one transaction with the place up to which the file has been read.

        Raises:
            Overtaken: another viewer of the run has written there meanwhile.
        """
        with self.connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute(
                "SELECT offset FROM marks WHERE source = ?", (batch.source,)
            ).fetchone()
            if (row["offset"] if row else 0) != batch.start.offset:
                raise Overtaken
            for step, row, texts in batch.rows:
                if step is not None:
                    connection.execute(
                        "DELETE FROM episodes WHERE source = ? AND step >= ?", (batch.source, step)
                    )
                number = connection.execute(INSERT, values_of(row)).lastrowid
                connection.execute(
                    "INSERT INTO words (rowid, prompt, answer, refined) VALUES (?, ?, ?, ?)",
                    (number, texts.prompt, texts.answer, texts.refined),
                )
            connection.executemany("INSERT INTO problems VALUES (?, ?, ?)", batch.problems)
            connection.execute(
                "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)",
                (batch.source, mark.offset, mark.lines, mark.tail, batch.last_step),
            )
        return Batch(batch.source, mark, batch.last_step)

    def state(self) -> State:
        """How far the index is."""
        (row,) = self.query(
            "SELECT (SELECT count(*) FROM episodes) AS n, (SELECT min(step) FROM episodes) AS a, "
            "(SELECT max(step) FROM episodes) AS b"
        )
        behind = 0
        for source in Source:
            path = self.run / source.file
            if path.exists():
                behind += max(0, path.stat().st_size - self._mark(source)[0].offset)
        return State(row["n"], row["a"] or 0, row["b"] or 0, behind)

    def problems(self) -> list[str]:
        """What is wrong with lines of the files, by kind."""
        rows = self.query(
            "SELECT source, message, count(*) AS n, min(line) AS line FROM problems "
            "GROUP BY source, message ORDER BY source, line"
        )
        return [
            f"{Source(row['source']).file}, {row['n']} "
            f"{'line' if row['n'] == 1 else 'lines'} from line {row['line']}: {row['message']}"
            for row in rows
        ]

    def read(self, source: Source, offset: int) -> dict[str, Any]:
        """The logged line at a place that the index knows; `ValueError` or `OSError` if the file
        changed.
        """
        return read_record_at(self.run / source.file, offset)


class Batch:
    """Rows of one file from a mark on that wait to be written, each with the step from which it
    voids earlier ones, if it does.
    """

    def __init__(self, source: Source, start: Mark, last_step: int) -> None:
        self.source = source
        self.start = start
        self.last_step = last_step
        self.rows: list[tuple[int | None, Row, Texts]] = []
        self.problems: list[tuple[int, int, str]] = []

    def add(
        self, record: dict[str, Any] | None, offset: int, number: int, problem: str | None
    ) -> None:
        """Take one line. Lines are written in the order of steps, so a lower step than the one
        before means that the run was resumed there and earlier lines from that step on are void.
        """
        if problem is not None:
            self.problems.append((self.source, number, problem))
        if record is None:
            return
        found = read_row(record, self.source, offset)
        if found is None:
            self.problems.append((self.source, number, NO_STEP))
            return
        row, texts = found
        self.rows.append((row.step if row.step < self.last_step else None, row, texts))
        self.last_step = row.step

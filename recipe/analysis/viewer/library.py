"""The runs that a viewer shows, under names for addresses, and the thread that follows them."""

import threading
from collections.abc import Sequence
from pathlib import Path

from recipe.analysis.printable import printable
from recipe.analysis.runs import find_run_folders
from recipe.analysis.viewer.index import RunIndex

PAUSE_S = 2.0
LINES_A_TURN = 2000
NAME_PARTS = 3


class Library:
    """Run folders at or below the given paths, each with its index; `names` are in their order."""

    def __init__(self, paths: Sequence[Path], cache: Path) -> None:
        self._paths = tuple(paths)
        self._cache = cache
        self._by_folder: dict[Path, str] = {}
        self._indexes: dict[str, RunIndex] = {}
        self.error = ""

    @property
    def names(self) -> list[str]:
        """The names of all runs."""
        return list(self._indexes)

    def __getitem__(self, name: str) -> RunIndex:
        return self._indexes[name]

    def __contains__(self, name: str) -> bool:
        return name in self._indexes

    def find(self) -> None:
        """Look for run folders, also for ones that began since the last time."""
        for path in self._paths:
            for folder in find_run_folders(path):
                resolved = folder.resolve()
                if resolved not in self._by_folder:
                    name = self._name(path, folder)
                    self._by_folder[resolved] = name
                    self._indexes[name] = RunIndex(folder, self._cache)

    def _name(self, path: Path, folder: Path) -> str:
        """The folder's place below the path's parent, or its last parts; numbered if taken."""
        path, folder = path.absolute(), folder.absolute()
        if folder == path:
            parts = folder.parts[-NAME_PARTS:]
        else:
            parts = (path.name, *folder.relative_to(path).parts)
        name = printable("/".join(parts).lstrip("/"))
        number = 2
        while name in self._indexes:
            name = f"{name.rpartition('~')[0] or name}~{number}"
            number += 1
        return name

    def update(self, most_rows: int | None = None) -> int:
        """Read what all runs gained, `most_rows` lines of each at most; return the lines read."""
        done = 0
        for index in list(self._indexes.values()):
            try:
                done += index.update(most_rows)
            except OSError as error:
                # The run folder is not ours: it may be moved or deleted while we look at it.
                self.error = f"{index.run}: cannot be read ({error.strerror})"
        return done


class Updater:
    """A thread that follows the runs until it is stopped."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Updater":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        """Read in turns, so that all runs grow together; look for new runs when all are read."""
        while not self._stop.is_set():
            if self._library.update(LINES_A_TURN):
                continue
            self._stop.wait(PAUSE_S)
            self._library.find()

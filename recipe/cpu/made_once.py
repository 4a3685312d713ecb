"""Folders of models that are made on this machine when they are first wanted, and reused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def user_cache() -> Path:
    """This project's folder in the user's cache (XDG_CACHE_HOME, by default ~/.cache)."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "online-refiner"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` has filled: now, or whenever it was first wanted.

    It appears whole or not at all, also if several processes want it at once.
    """
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make(partial)
    try:
        partial.rename(folder)
    except OSError:  # another process was quicker
        shutil.rmtree(partial)
    return folder

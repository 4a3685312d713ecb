"""A Ray job's runtime environment, as JSON: what of a checkout is sent, and which variables.

ray_upload.py ROOT [--send PATH ...] [--variables NAME ...]

Sent are the packages, and what --send names. Nothing else that lies in a checkout is: images,
wheels, environments, data. Exit status 2 where that is more than Ray's dashboard takes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

PACKAGES = ("recipe", "refiner_worker", "reward", "pyproject.toml")
NEVER = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".git")
LIMIT_BYTES = 100 << 20
"""Of Ray's dashboard, for the packed files; more is refused there with HTTP's 413."""


class UploadError(ValueError):
    """Something cannot be sent; the message says what and how to go on."""


def excludes(sent: Iterable[str]) -> list[str]:
    """Patterns, as of .gitignore, that leave out all but `sent`; a later one wins.

    The first two are "/*" but for ".": Ray asks for the checkout itself, and sends nothing where it
    is left out.
    """
    patterns: list[str] = ["/[!.]*", "/.?*"]
    for path in sorted(sent):
        parts = PurePosixPath(path).parts
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if f"!/{parent}" not in patterns:
                patterns += [f"!/{parent}", f"/{parent}/*"]
        patterns += [f"!/{path}", f"!/{path}/**"]
    return patterns + [f"**/{name}" for name in NEVER]


def paths_to_send(root: Path, asked: Iterable[str]) -> list[str]:
    """The packages and what was asked for, below `root`. Raises UploadError."""
    found = [name for name in PACKAGES if (root / name).exists()]
    for name in asked:
        path = Path(os.path.normpath(root / name))
        if not path.exists():
            raise UploadError(f"--send {name}: there is no {path}. Fix: a path in the checkout")
        if root not in path.parents:
            raise UploadError(f"--send {name} is not in {root}. Fix: copy it there")
        relative = path.relative_to(root).as_posix()
        if not any(relative == one or relative.startswith(f"{one}/") for one in found):
            found.append(relative)
    return found


def files(root: Path, sent: Iterable[str]) -> Iterator[Path]:
    """All files that are sent."""
    for name in sent:
        if (root / name).is_file():
            yield root / name
        for folder, folders, names in os.walk(root / name):
            folders[:] = [one for one in folders if one not in NEVER]
            yield from (Path(folder) / one for one in names)


def check_size(root: Path, sent: Iterable[str]) -> None:
    """Raises UploadError where Ray would not take it, with the largest files."""
    sizes = sorted(((path.stat().st_size, path) for path in files(root, sent)), reverse=True)
    total = sum(size for size, _ in sizes)
    if total > LIMIT_BYTES:
        largest = ", ".join(f"{path.relative_to(root)} ({size >> 20} MiB)"
                            for size, path in sizes[:3])  # fmt: skip
        raise UploadError(
            f"{total >> 20} MiB would be sent, and Ray's dashboard takes {LIMIT_BYTES >> 20} MiB; "
            f"the largest: {largest}. Fix: put data and models on storage that all nodes share"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--send", nargs="*", default=[])
    parser.add_argument("--variables", nargs="*", default=[])
    options = parser.parse_args()
    root = options.root.resolve()
    try:
        sent = paths_to_send(root, options.send)
        check_size(root, sent)
    except UploadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    given = {name: os.environ[name] for name in options.variables if os.environ.get(name)}
    environment = {"working_dir": str(root), "excludes": excludes(sent), "env_vars": given}
    print(json.dumps(environment))
    return 0


if __name__ == "__main__":
    sys.exit(main())

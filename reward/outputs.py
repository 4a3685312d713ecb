"""Where a command line is to write, looked at before it starts its work."""

from collections.abc import Iterable, Mapping
from pathlib import Path


class OutputError(ValueError):
    """A file that cannot be written; the message says which, why and what to do."""


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path]) -> None:
    """Whether all the files, by the option that names each, can be written; none is changed.

    Raises:
        OutputError: one cannot, is read as well, or is named twice.
    """
    taken = {path.resolve(): "is read too" for path in inputs}
    for option, path in outputs.items():
        if path is None:
            continue
        if reason := taken.get(path.resolve()):
            raise OutputError(f"{option} {path} {reason}: name another file")
        taken[path.resolve()] = f"is {option} too"
        _try_to_write(option, path)


def _try_to_write(option: str, path: Path) -> None:
    there = path.exists()
    try:
        with open(path, "ab"):
            pass
        if not there:
            path.resolve().unlink()
    except OSError as error:
        raise OutputError(
            f"{option} {path} cannot be written: {error.strerror}: name a file in a folder that "
            "exists and can be written to"
        ) from error

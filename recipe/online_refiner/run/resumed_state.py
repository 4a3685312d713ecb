"""What a resumed run does differently from the one that has written its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Changed(NamedTuple):
    """A key whose value is another one than when the checkpoint was written."""

    key: str
    before: Any
    now: Any


def changed(
    before: Mapping[str, Any], now: Mapping[str, Any], section: str = ""
) -> Iterator[Changed]:
    """The keys of both whose values differ, those of sections by their whole name.

    A key that only one has is of another version of the program: it says nothing of the run.
    """
    for key in sorted(before.keys() & now.keys()):
        name = f"{section}.{key}" if section else key
        if isinstance(before[key], Mapping) and isinstance(now[key], Mapping):
            yield from changed(before[key], now[key], name)
        elif before[key] != now[key]:
            yield Changed(name, before[key], now[key])

"""The page through which a program's process says how far it is.

The page is shared memory that the program can write as well, so it is believed only if that
lowers a verdict (`results`). Layout: byte 0 phase, byte 1 unused, bytes 2-3 the position of the
running test within its group, then per position one `End` byte and DETAIL_BYTES of text.
"""

import mmap
import struct

from reward.sandbox.wire import End

DETAIL_BYTES = 47
SLOT_BYTES = 1 + DETAIL_BYTES
HEADER_BYTES = 4
PHASE_COMPILING, PHASE_RUNNING, PHASE_DONE = range(1, 4)
MAX_GROUP = 32
PAGE_BYTES = mmap.PAGESIZE

_EMPTY = bytes(PAGE_BYTES)


class Record:
    """The page as the program's process writes it."""

    def __init__(self, page: mmap.mmap) -> None:
        self.page = page

    def clear(self) -> None:
        """Wipe all of the page: a program may have left something anywhere for the next."""
        self.page[:] = _EMPTY

    def enter(self, phase: int) -> None:
        self.page[0] = phase

    def move_to(self, position: int) -> None:
        struct.pack_into("<H", self.page, 2, position)

    def end(self, position: int, end: End, detail: str = "") -> None:
        start = HEADER_BYTES + position * SLOT_BYTES
        text = detail.encode("utf-8", "replace")[:DETAIL_BYTES].ljust(DETAIL_BYTES, b"\0")
        self.page[start : start + SLOT_BYTES] = bytes([end]) + text


class Report:
    """A copy of the page as the judge reads it."""

    def __init__(self, page: bytes) -> None:
        self._page = page
        self.phase = page[0]
        (self.position,) = struct.unpack_from("<H", page, 2)

    def read(self, position: int) -> tuple[int, str]:
        """What the process says of a test: how it ended, a number that may be anything, and why."""
        start = HEADER_BYTES + position * SLOT_BYTES
        slot = self._page[start : start + SLOT_BYTES]
        return slot[0], slot[1:].rstrip(b"\0").decode("utf-8", "replace")

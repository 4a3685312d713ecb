"""Threads with the stacks that programs ask for, as far as their memory allows.

Contest programs ask for thread stacks of 256 MiB to 1 GiB so that they may recurse. All of it
counts as address space, which is what limits memory, so such a thread would not start; and calls of
Python functions need none of it. The request is granted with a smaller stack.
"""

import _thread
import threading

_SHARE = 4  # of the memory limit


def clamp_stack_sizes(memory_bytes: int) -> None:
    """Let `threading.stack_size` accept any size, and use a quarter of the memory limit at most."""
    real, largest = _thread.stack_size, max(1 << 20, memory_bytes // _SHARE)
    asked = [0]

    def stack_size(size: int = 0, /) -> int:
        before = real(min(size, largest))
        before, asked[0] = asked[0] or before, size
        return before

    threading.stack_size = _thread.stack_size = stack_size

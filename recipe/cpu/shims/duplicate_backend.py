"""One communication backend, named once."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any


def without_duplicates(backend: str) -> str:
    """`cpu:gloo,cpu:gloo` -> `cpu:gloo`; order and everything else stay."""
    return ",".join(dict.fromkeys(backend.split(",")))


def accept_duplicate_backend(distributed: ModuleType) -> None:
    """Drop repeated entries from the backend given to `init_process_group`.

    Symptom: "Duplicate device type cpu in backend string: cpu:gloo,cpu:gloo". verl asks for one
    backend for the CPU and one for the accelerator (`verl/utils/distributed.py`), and here the
    accelerator is the CPU.
    """
    stock_init = distributed.init_process_group

    @functools.wraps(stock_init)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(backend, str):
            backend = without_duplicates(backend)
        return stock_init(backend, *args, **kwargs)

    distributed.init_process_group = init_process_group  # type: ignore[attr-defined]

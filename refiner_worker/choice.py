"""What `refiner.decoding: auto` stands for: the fastest method for the engine at hand.

It never breaks a run that plain decoding would survive, and never changes what is sampled: if an
engine cannot speculate, or not exactly, or is set up to do so already, the choice is `plain`.

The order is that of wall times measured on vLLM's CPU build (docs/refiner.md), and with vLLM 0.24
on a CUDA GPU (docs/gpu.md). Elsewhere vLLM's own n-gram drafts stay the choice until
`scripts/gpu_acceptance.py` has shown that our proposer wins. Ours.
"""

import importlib.util
from dataclasses import dataclass

from refiner_worker.decoding import Decoding

COPY_RELEASES = ("0.24", "0.25", "0.26", "0.27", "0.28")
"""vLLM's releases whose interface for proposers is the one that `copy_proposer.py` is written for;
`scripts/record_vllm_interface.py` reads it from their source."""
FASTEST_ON_CUDA = ("0.24",)
"""Those with which our proposer has won on a CUDA GPU."""


@dataclass(frozen=True)
class EngineAtHand:
    """What the choice depends on.

    Attributes:
        name: verl's `rollout.name`.
        version: of the engine's package; None if it is not installed here.
        device: cuda, rocm, cpu, or another.
        temperature: of the refiner; 0 is greedy.
        obstacle: why this engine must not be told to speculate; empty if nothing forbids it.
    """

    name: str
    version: str | None
    device: str
    temperature: float
    obstacle: str = ""


@dataclass(frozen=True)
class Choice:
    """A decoding method and, for people, the reason."""

    decoding: Decoding
    why: str


def choose(engine: EngineAtHand) -> Choice:
    """The fastest decoding method that the engine is known to do exactly."""
    if engine.obstacle:
        return Choice(Decoding.PLAIN, engine.obstacle)
    if engine.name == "vllm":
        return _on_vllm(engine.version, engine.device)
    if engine.name == "sglang":
        return _on_sglang(engine.device, engine.temperature)
    return Choice(Decoding.PLAIN, f"nothing faster is known for {engine.name}")


def _on_vllm(version: str | None, device: str) -> Choice:
    if version is None:
        return Choice(Decoding.NGRAM, "vLLM, of a release that is not known here")
    if not _is_of(version, COPY_RELEASES):
        known = f"{COPY_RELEASES[0]} to {COPY_RELEASES[-1]}"
        return Choice(Decoding.NGRAM, f"vLLM {version}; our proposer is written for {known}")
    if importlib.util.find_spec("numba") is None:
        return Choice(Decoding.NGRAM, f"vLLM {version}; our proposer needs numba, not installed")
    if device == "cpu" or (device == "cuda" and _is_of(version, FASTEST_ON_CUDA)):
        return Choice(Decoding.COPY, f"vLLM {version} takes our proposer")
    return Choice(
        Decoding.NGRAM,
        f"vLLM {version} takes our proposer too (refiner.decoding=copy), which was not measured "
        f"with it on {device}; scripts/gpu_acceptance.py compares them",
    )


def _is_of(version: str, releases: tuple[str, ...]) -> bool:
    return any(version.startswith(f"{release}.") for release in releases)


def _on_sglang(device: str, temperature: float) -> Choice:
    if device not in ("cuda", "rocm"):
        return Choice(Decoding.PLAIN, f"SGLang does not speculate by n-grams on {device}")
    if device == "rocm" and temperature > 0:
        return Choice(Decoding.PLAIN, "SGLang verifies drafts greedily on ROCm, whatever is asked")
    return Choice(Decoding.NGRAM, "SGLang")

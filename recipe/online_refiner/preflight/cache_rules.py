"""Does a cache whose size the engine is told hold a sequence, and does it fit beside the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from omegaconf import OmegaConf

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.gpu_memory_rules import (
    LENGTH_KEYS,
    ROLLOUT_KEYS,
    Sizes,
    estimate,
    roles_apart,
    sequence_lengths,
    served,
    told_sizes,
)
from recipe.online_refiner.preflight.memory import PROCESS_BYTES, USABLE
from recipe.online_refiner.preflight.shapes import gib, read_shapes

CACHE = "engine_kwargs.vllm.kv_cache_memory_bytes"
MIB = 1 << 20


@dataclass(frozen=True)
class ToldCache:
    """A cache of the size that a key gives.

    Attributes:
        key: that gives it; the refiner's servers take the policy's unless they have their own.
        size, least: bytes on each GPU, and those of one sequence.
    """

    key: str
    size: int
    least: int


def check_caches(plan: RunPlan) -> Iterator[str]:
    """A cache of a given size holds one sequence of the server's length, and leaves room."""
    needed = sequence_lengths(plan)
    for role, one in told_caches(plan).items():
        if one.size < one.least:
            tokens = one.size * needed[role] // one.least
            yield (
                f"{ROLLOUT_KEYS[role]}.{CACHE}={one.size}: a cache of {tokens} tokens, and the "
                f"{role} server's longest sequence has {needed[role]} ({LENGTH_KEYS[role]}). Fix: "
                f"{one.least} or more"
            )
    sizes = estimate(plan)
    if sizes is not None:
        yield from _too_large(plan, sizes)


def told_caches(plan: RunPlan) -> dict[str, ToldCache]:
    """The caches of given sizes, by the role of their servers."""
    sizes, needed, found = told_sizes(plan), sequence_lengths(plan), {}
    for role, shape, rollout in served(plan, read_shapes(plan)[0]):
        if role not in sizes or role not in needed:
            continue
        own = OmegaConf.select(plan.config, f"{ROLLOUT_KEYS[role]}.{CACHE}") is not None
        wide = 2 if rollout.dtype in ("float32", "float") else 1
        token = wide * shape.cache_bytes_per_token // rollout.tensor_model_parallel_size
        key = f"{ROLLOUT_KEYS[role if own else 'policy']}.{CACHE}"
        found[role] = ToldCache(key, sizes[role], needed[role] * token)
    return found


def _too_large(plan: RunPlan, sizes: Sizes) -> Iterator[str]:
    usable, told = int(USABLE * sizes.gpu_bytes), told_caches(plan)
    apart = roles_apart(plan)
    for role in apart & set(told):
        held = sizes.servers[role].share_bytes + PROCESS_BYTES
        if held > usable:
            yield _sentence({role: told[role]}, f"a GPU of the {role}'s own", held, sizes)
    beside = {role: one for role, one in told.items() if role not in apart}
    if beside and sizes.peaks.rollout > usable:
        yield _sentence(beside, "while rollouts are made a GPU", sizes.peaks.rollout, sizes)


def _sentence(told: Mapping[str, ToldCache], who: str, held: int, sizes: Sizes) -> str:
    """Names the largest of these caches, and the size at which the GPU would hold everything."""
    largest = max(told.values(), key=lambda one: one.size)
    alike = [one for one in told.values() if one.key == largest.key]
    usable = int(USABLE * sizes.gpu_bytes)
    fits = (largest.size - -(-(held - usable) // len(alike))) // MIB * MIB
    least = max(one.least for one in alike)
    fix = f"{largest.key}={fits}" if fits >= least else "lower it, or GPUs with more memory"
    return (
        f"{largest.key}={largest.size}: {who} would hold {gib(held)}, {gib(largest.size)} of them "
        f"this cache, and {gib(usable)} of its {gib(sizes.gpu_bytes)} may be planned with. Fix: "
        f"{fix}"
    )

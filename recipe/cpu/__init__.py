"""Everything that only a machine without a GPU needs to run stock verl: platform, shims, settings.

This module imports nothing heavy, so that a launcher can set the environment before torch, Ray
and verl are imported: `os.environ.update(recipe.cpu.environment())`. On the command line
`eval "$(python -m recipe.cpu)"` does the same for a shell.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

PLUGIN_MODULE = "recipe.cpu.plugin"
CLUSTER_VARIABLE = "ONLINE_REFINER_CLUSTER"
"""Names the local cluster that a process belongs to; `recipe.cpu.launch.prepared` sets it."""


def environment(threads: int = 1) -> dict[str, str]:
    """The variables of a CPU run, for the launcher and every Ray worker (runtime_env env_vars).

    Args:
        threads: of each process. More than one pays only for a model much larger than the tiny one.
    """
    return {
        # verl: load the plugin, use its platform, and take the FSDP engine registered for CUDA,
        # which runs on any device.
        "VERL_USE_EXTERNAL_MODULES": PLUGIN_MODULE,
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",
        # By default one thread a process: waking a second took 0.2 ms where it was measured, longer
        # than most operations of a model of this size, and letting it spin takes the core from the
        # others.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait sleep. Those that spin take the cores from the other processes: with two
        # threads each and a model of 135 M parameters, a step generated for 28 s in place of 10 s.
        "OMP_WAIT_POLICY": "passive",
        "MKL_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Compiling costs 20 s at the first generation and gains nothing on a tiny model.
        "TORCHDYNAMO_DISABLE": "1",
        # Lets a server keep its only worker in the engine's own process (cpu_debug.yaml).
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Nothing is looked up or reported outside.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "ONLINE_REFINER_REPLAY_POLL_S": "0.1",
        # Read when vLLM is imported; what verl sets for its own workers.
        "VLLM_LOGGING_LEVEL": "WARN",
        "ONLINE_REFINER_WORKER_PYTHON": shlex.join(python_command()),
    }


def python_command() -> list[str]:
    """The command that starts Python from the fork server, or plainly if there is none."""
    program = Path(__file__).with_name("forked_python.py").resolve()
    return [sys.executable, "-I", "-S", str(program)]

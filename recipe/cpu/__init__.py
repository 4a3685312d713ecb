"""Everything that only a machine without a GPU needs to run stock verl: platform, shims, settings.

This module imports nothing heavy, so that a launcher can set the environment before torch, Ray
and verl are imported: `os.environ.update(recipe.cpu.environment())`. On the command line
`eval "$(python -m recipe.cpu)"` does the same for a shell.
"""

from __future__ import annotations

import os

PLUGIN_MODULE = "recipe.cpu.plugin"
MAX_THREADS = 4
"""More do not help a model of this size."""


def environment() -> dict[str, str]:
    """The variables of a CPU run, for the launcher and every Ray worker (runtime_env env_vars)."""
    threads = str(min(MAX_THREADS, os.cpu_count() or 1))
    return {
        # verl: load the plugin, use its platform, and take the FSDP engine registered for CUDA,
        # which runs on any device.
        "VERL_USE_EXTERNAL_MODULES": PLUGIN_MODULE,
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",
        # The actor trains while every other process waits, so it may have several cores; passive
        # waiting, because servers and judges share them while rollouts are made.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
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
    }

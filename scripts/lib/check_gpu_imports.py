"""Import what a training on GPUs loads, on a machine without one: check_gpu_imports.py ENGINE.

To be run in an environment installed from requirements/gpu-ENGINE.lock, with the library of
stand_in_libcuda.py on LD_LIBRARY_PATH. PyTorch is told that there is one H100, so that the engines
take the branches of their modules that they take there; nothing is computed. Exit status 1 with a
line for each module that does not load.
"""

import importlib
import pkgutil
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator

PACKAGES = ("recipe", "refiner_worker", "reward")
TRAINING = (
    "verl.trainer.main_ppo",
    "verl.trainer.ppo.v1.trainer_base",
    "verl.trainer.ppo.v1.agent_loop_tq",
    "verl.experimental.agent_loop",
    "verl.experimental.reward_loop",
    "verl.workers.reward_manager",
    "verl.workers.engine_workers",
    "verl.workers.engine.fsdp.transformer_impl",
    "verl.workers.rollout.llm_server",
    "verl.workers.rollout.router",
    "verl.checkpoint_engine.base",
)
VLLM = (
    "verl.workers.rollout.vllm_rollout.vllm_rollout",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer",
    "vllm._C_stable_libtorch",
    "vllm._moe_C_stable_libtorch",
    "vllm.cumem_allocator",
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
    "vllm.device_allocator.cumem",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.spec_decode.custom_class_proposer",
    "vllm.v1.spec_decode.ngram_proposer",
    "vllm.v1.spec_decode.suffix_decoding",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.v1.attention.backends.flashinfer",
    "vllm.v1.attention.backends.triton_attn",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.qwen2",
)
SGLANG = (
    "sgl_kernel",
    "torch_memory_saver",
    "sglang.srt.entrypoints.engine",
    "sglang.srt.entrypoints.http_server",
    "sglang.srt.managers.detokenizer_manager",
    "sglang.srt.managers.scheduler",
    "sglang.srt.managers.tokenizer_manager",
    "sglang.srt.model_executor.model_runner",
    "sglang.srt.layers.attention.flashattention_backend",
    "sglang.srt.layers.attention.flashinfer_backend",
    "sglang.srt.layers.attention.triton_backend",
    "sglang.srt.models.llama",
    "sglang.srt.models.qwen2",
    "verl.workers.rollout.sglang_rollout.sglang_rollout",
    "verl.workers.rollout.sglang_rollout.async_sglang_server",
)
# Not Megatron-Bridge: it needs Transformer Engine, half of which is compiled where one trains.
MEGATRON = (
    "megatron.core",
    "megatron.core.models.gpt.gpt_model",
    "megatron.core.optimizer",
    "modelopt.torch",
    "verl.workers.engine.megatron.transformer_impl",
    "verl.utils.checkpoint.megatron_checkpoint_manager",
)
MODULES = {"vllm": VLLM, "sglang": SGLANG, "megatron": (*VLLM, *MEGATRON)}
NOT_ON_GPUS = {"recipe.cpu.plugin"}
"""What refuses every version but those of the environment without GPUs."""
INTO_VLLM = {
    "recipe.acceptance.decode",
    "refiner_worker.copy_proposer",
    "refiner_worker.local_vllm",
    "refiner_worker.shared_base",
}
"""Modules of ours that are loaded where vLLM generates, and only there."""


def tell_of_a_gpu() -> None:
    """Answer PyTorch's questions after a device as an H100 does."""
    import torch

    facts = {"name": "NVIDIA H100", "major": 9, "minor": 0, "total_memory": 80 << 30}
    device = types.SimpleNamespace(**facts, multi_processor_count=132)
    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": (9, 0),
        "get_device_name": device.name,
        "get_device_properties": device,
    }
    for name, value in answers.items():
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)


def choose_cuda_in_vllm() -> None:
    """vLLM asks the driver's tools for a device, and would find none."""
    import vllm.platforms
    from vllm.platforms.cuda import CudaPlatform

    vllm.platforms._current_platform = CudaPlatform()


def own_modules(engine: str) -> Iterator[str]:
    """Every module of the project that such an environment may load."""
    left_out = NOT_ON_GPUS | (INTO_VLLM if engine == "sglang" else set())
    for package in PACKAGES:
        module = importlib.import_module(package)
        yield package
        for found in pkgutil.walk_packages(module.__path__, f"{package}."):
            if not found.name.endswith("__main__") and found.name not in left_out:
                yield found.name


def failure_of(name: str) -> str | None:
    """Why a module does not load."""
    try:
        importlib.import_module(name)
    except BaseException as error:  # whatever a module raises while it loads, SystemExit included
        reason = " ".join(str(error).split())
        return f"{name}: {type(error).__name__}: {reason}"
    return None


def main() -> int:
    engine = sys.argv[1]
    started = time.monotonic()
    tell_of_a_gpu()
    if engine != "sglang":
        choose_cuda_in_vllm()
    names = [*TRAINING, *MODULES[engine], *own_modules(engine)]
    failures = [failure for failure in map(failure_of, names) if failure is not None]
    loaded = Counter(name.partition(".")[0] for name in sys.modules)
    tops = [top for top in (*PACKAGES, "verl", "vllm", "sglang", "megatron") if loaded[top]]
    counts = ", ".join(f"{loaded[top]} of {top}" for top in tops)
    seconds = time.monotonic() - started
    print(f"{len(names) - len(failures)} of {len(names)} modules load; {counts} ({seconds:.0f} s)")
    print("".join(f"  {failure}\n" for failure in failures), end="")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

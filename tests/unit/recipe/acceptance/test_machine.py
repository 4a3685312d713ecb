"""The machine as it is found, with a stand-in for nvidia-smi on the path."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recipe.acceptance.machine import (
    MIB,
    PACKAGES,
    NoGpuError,
    found,
    gpu_memory_bytes,
    process_memory_bytes,
    versions,
)
from recipe.acceptance.memory_watch import watched

SMI = """#!/bin/sh
case "$*" in
    *--id=3*name*) echo "NVIDIA H100 80GB HBM3, 81559, 580.65.06" ;;
    *--id=3*loop-ms*) while :; do echo 1000; echo 3000; sleep 0.05; done ;;
    *--id=3*memory.used*) echo 2000 ;;
    *) exit 1 ;;
esac
"""


@pytest.fixture
def with_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts the stand-in on the path; it knows GPU 3 alone."""

    def put(visible: str) -> None:
        smi = tmp_path / "nvidia-smi"
        smi.write_text(SMI)
        smi.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return put


def test_a_gpu_is_the_first_that_is_visible(with_gpu: Callable[[str], None]) -> None:
    with_gpu("3,4")
    machine = found("auto")
    assert machine.device == "cuda"
    assert (machine.card, machine.driver) == ("NVIDIA H100 80GB HBM3", "580.65.06")
    assert machine.memory_bytes == 81559 * MIB
    assert gpu_memory_bytes() == 2000 * MIB
    assert "VERL_PLATFORM" not in machine.environment().keys() - os.environ.keys()


def test_the_cpu_is_taken_where_it_is_asked_for_or_no_gpu_answers(
    with_gpu: Callable[[str], None],
) -> None:
    with_gpu("3")
    asked = found("cpu")
    with_gpu("0")
    assert found("auto") == asked
    assert asked.device == "cpu" and asked.memory_bytes > 1 << 30
    assert asked.environment()["VERL_PLATFORM"] == "cpu"
    with pytest.raises(NoGpuError, match="--device cpu --small"):
        found("cuda")


def test_memory_is_sampled_until_the_block_ends(with_gpu: Callable[[str], None]) -> None:
    with_gpu("3")
    with watched(found("cuda"), os.getpid()) as samples:
        while len(samples) < 4:
            time.sleep(0.01)
    count = len(samples)
    assert {one.used_bytes for one in samples} == {1000 * MIB, 3000 * MIB}
    assert [one.at_s for one in samples] == sorted(one.at_s for one in samples)
    time.sleep(0.2)
    assert len(samples) == count


def test_a_process_counts_with_what_it_started_and_none_as_nothing() -> None:
    assert process_memory_bytes(os.getpid()) > 10 * MIB
    assert process_memory_bytes(2**22 + 1) == 0


def test_versions_name_what_is_installed_alone() -> None:
    assert versions()["verl"] == "0.9.1"
    assert None not in versions().values()
    assert set(versions()) <= {"python", *PACKAGES}

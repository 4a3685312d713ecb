"""A node whose sockets would not start, or whose shared memory is too small, is refused."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.preflight import node_rules
from recipe.online_refiner.preflight.node_rules import (
    free_shared_memory,
    node_faults,
    ray_folder,
    shared_memory_faults,
    shared_memory_needed,
    socket_faults,
    starts_ray,
)
from recipe.online_refiner.resolve.resolving import resolve

Compose = Callable[..., DictConfig]
REPO_ROOT = Path(__file__).resolve().parents[4]
MIB = 1 << 20
OF_RAY = "RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR", "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_RAY:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def composed_quickstart() -> DictConfig:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("online_refiner", ["experiment=quickstart_sane", "hardware=cpu_debug"])


def on_cpu(**ray_init: object) -> DictConfig:
    return OmegaConf.create(
        {
            "trainer": {"device": "cpu", "n_gpus_per_node": 2},
            "actor_rollout_ref": {
                "rollout": {"checkpoint_engine": {"update_weights_bucket_megabytes": 16}}
            },
            "ray_kwargs": {"ray_init": ray_init},
        }
    )


def test_the_longest_folder_for_rays_sockets_has_39_bytes() -> None:
    assert list(socket_faults("/" + "t" * 38, "/tmp")) == []
    (fault,) = socket_faults("/" + "t" * 39, "/tmp")
    assert "TMPDIR=" in fault and "40 bytes" in fault and "leave it 39" in fault and "Fix:" in fault


def test_bytes_count_and_not_characters() -> None:
    (fault,) = socket_faults("/" + "ü" * 20, "/tmp")
    assert "41 bytes" in fault


def test_the_longest_folder_for_vllms_sockets_has_70_bytes() -> None:
    assert list(socket_faults("/tmp", "/" + "t" * 69)) == []
    (fault,) = socket_faults("/tmp", "/" + "t" * 70)
    assert "vLLM" in fault and "71 bytes" in fault


def test_the_limit_is_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the folder, so that the name alone counts."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as fits, socket.socket(socket.AF_UNIX) as too_long:
        fits.bind("s" * node_rules.LONGEST_SOCKET_PATH)
        with pytest.raises(OSError, match="too long"):
            too_long.bind("s" * (node_rules.LONGEST_SOCKET_PATH + 1))


def test_ray_takes_the_longest_folder_and_refuses_one_byte_more() -> None:
    utils = pytest.importorskip("ray._private.utils")
    below = "/ray/session_2026-11-26_09-10-11_123456_4194304/sockets/plasma_store"
    utils.validate_socket_filepath("/" + "t" * 38 + below)
    with pytest.raises(OSError, match="cannot exceed 107 bytes"):
        utils.validate_socket_filepath("/" + "t" * 39 + below)


def test_ray_names_its_longest_socket_as_expected() -> None:
    node = pytest.importorskip("ray._private.node")
    source = Path(node.__file__).read_text()
    assert '"%Y-%m-%d_%H-%M-%S_%f"' in source and 'f"session_{date_str}_{os.getpid()}"' in source
    assert 'default_prefix="plasma_store"' in source and '"sockets"' in source
    assert int(Path("/proc/sys/kernel/pid_max").read_text()) <= 4194304


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "/tmp"),
        ({"TMPDIR": "/scratch"}, "/scratch"),
        ({"TMPDIR": "/scratch", "RAY_TMPDIR": "/short"}, "/short"),
    ],
)
def test_ray_is_asked_where_it_would_look(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    utils = pytest.importorskip("ray._common.utils")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ray_folder() == folder == utils.get_default_system_temp_dir()


def test_a_cluster_that_runs_already_has_folders_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert starts_ray(on_cpu()) and starts_ray(on_cpu(address="local"))
    assert not starts_ray(on_cpu(address="10.0.0.1:6379"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not starts_ray(on_cpu()) and starts_ray(on_cpu(address="local"))
    monkeypatch.setenv("TMPDIR", "/" + "t" * 80)
    assert list(node_faults(on_cpu())) == []


def test_a_long_folder_is_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "t" * 60)
    faults = list(node_faults(on_cpu(address="local")))
    assert len(faults) == 1 and faults[0].startswith("TMPDIR='/tttt")


def test_without_gpus_weights_pass_through_a_bucket_a_rank_beside_rays_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = on_cpu(object_store_memory=200_000_000)
    assert shared_memory_needed(config) == 200_000_000 + 2 * 16 * MIB
    monkeypatch.setenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", "1")
    assert shared_memory_needed(config) == 2 * 16 * MIB


def test_with_gpus_nccl_needs_a_gibibyte_and_ray_sizes_itself() -> None:
    config = on_cpu()
    config.trainer.device = "cuda"
    assert shared_memory_needed(config) == 1024 * MIB
    config.ray_kwargs.ray_init.object_store_memory = 512 * MIB
    assert shared_memory_needed(config) == 1536 * MIB


def test_dockers_default_is_too_little_and_the_fault_says_what_to_do() -> None:
    assert list(shared_memory_faults(223 * MIB, 223 * MIB)) == []
    (fault,) = shared_memory_faults(223 * MIB - 1, 64 * MIB)
    assert "has 64 MiB free" in fault and "up to 223 MiB" in fault and "--shm-size=2g" in fault


def test_free_shared_memory_is_what_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = os.statvfs(tmp_path)
    monkeypatch.setattr(node_rules, "SHARED_MEMORY", tmp_path)
    assert abs(free_shared_memory() - found.f_bavail * found.f_frsize) < 1024 * MIB
    monkeypatch.setattr(node_rules, "SHARED_MEMORY", tmp_path / "none")
    assert free_shared_memory() == 0


def test_the_scripts_refuse_what_the_preflight_refuses(composed_quickstart: DictConfig) -> None:
    script = (REPO_ROOT / "scripts/lib/environment.sh").read_text()
    values = {name: int(value) for name, value in re.findall(r"^([A-Z_]+)=(\d+)$", script, re.M)}
    below = node_rules.RAY_BELOW
    assert values["LONGEST_TMPDIR_BYTES"] == node_rules.LONGEST_SOCKET_PATH - below
    assert values["SHARED_MEMORY_MIB"] == -(-shared_memory_needed(composed_quickstart) // MIB)


@pytest.mark.parametrize(("size", "status"), [(39, 0), (40, 1)])
def test_the_scripts_refuse_a_long_folder(size: int, status: int) -> None:
    command = f"source {REPO_ROOT}/scripts/lib/environment.sh && check_temporary_folder"
    environment = {"PATH": os.environ["PATH"], "TMPDIR": "/" + "t" * (size - 1)}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == status
    assert ("fix: export TMPDIR=/tmp" in done.stderr) == (status == 1)


@pytest.mark.parametrize(("here", "refused"), [(5, True), (6, False)])
def test_processors_that_ray_counts_hold_what_is_reserved(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, here: int, refused: bool
) -> None:
    """One CPU rank, the queue's two processes, and a free one."""
    monkeypatch.setattr(os, "cpu_count", lambda: here)
    monkeypatch.setattr(node_rules, "CGROUP_QUOTA", Path("/nowhere"))
    plan = resolve(composed("ray_kwargs.ray_init.num_cpus=null"))
    faults = list(node_rules.check_ray_resources(plan))
    assert [fault.partition(":")[0] for fault in faults] == (
        [f"ray_kwargs.ray_init.num_cpus=null ({here} here)"] if refused else []
    )


@pytest.mark.parametrize(
    ("quota", "counted"),
    [("max 100000", 8), ("400000 100000", 4), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_a_container_may_be_allowed_fewer_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, counted: int
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(f"{quota}\n")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(node_rules, "CGROUP_QUOTA", file)
    assert node_rules.processors() == counted


@pytest.mark.parametrize(("there", "here"), [(True, 5), (True, 6), (False, 5)])
def test_a_node_with_gpus_and_few_processors_is_warned_of(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, here: int
) -> None:
    """A preflight may run on another node than the run, whose processors are not known."""
    file = tmp_path / "nvidiactl"
    monkeypatch.setattr(node_rules, "GPU_FILE", file)
    monkeypatch.setattr(node_rules, "processors", lambda: here)
    if there:
        file.touch()
    plan = resolve(composed("trainer.device=cuda", "ray_kwargs.ray_init.num_cpus=null"))
    assert list(node_rules.check_ray_resources(plan)) == []
    found = list(node_rules.ray_warnings(plan))
    assert len(found) == (there and here < 6)
    assert all(f"counts {here} processors, the run reserves 6" in warning for warning in found)

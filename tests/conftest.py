"""Markers by folder, and the fixtures every test may ask for."""

import ctypes
import gc
from pathlib import Path

import pytest

from recipe.cpu.startup import collect_rarely

REPO_ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = REPO_ROOT.parent / "shared" / "data"
MARKED_FOLDERS = ("integration", "adversarial", "gpu")


def pytest_configure() -> None:
    collect_rarely()


def pytest_collection_finish() -> None:
    """Modules stay: without them a look for unreachable cycles takes milliseconds, not a second."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test after the folder below tests/ that it lies in."""
    for item in items:
        folder = item.path.relative_to(REPO_ROOT / "tests").parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if item.get_closest_marker("vllm_kernels"):
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError as error:
            pytest.skip(f"vLLM's kernels need libnuma: {error}")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_data_if_any() -> Path | None:
    """Real sample data beside the checkout."""
    return SHARED_DATA if SHARED_DATA.is_dir() else None


@pytest.fixture(scope="session")
def shared_data(shared_data_if_any: Path | None) -> Path:
    """The same; the test is skipped where there is none."""
    if shared_data_if_any is None:
        pytest.skip(f"sample data not found at {SHARED_DATA}")
    return shared_data_if_any

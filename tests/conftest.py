"""Markers by folder, and the fixtures every test may ask for."""

import ctypes
import gc
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipe.cpu.startup import collect_rarely

REPO_ROOT = Path(__file__).resolve().parent.parent
SAMPLE_DATA_VARIABLE = "ONLINE_REFINER_SAMPLE_DATA"
"""Folder of real sample data; set but empty, there is none."""
DEFAULT_SAMPLE_DATA = REPO_ROOT.parent / "shared" / "data"
MARKED_FOLDERS = ("integration", "adversarial", "gpu")


def pytest_configure() -> None:
    collect_rarely()
    # A shell starts a command in the background with SIGINT ignored, and so would be the programs
    # that the tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Modules stay: without them a look for unreachable cycles takes milliseconds, not a second."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test after the folder below tests/ that it lies in, and if it asks for sample data."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("sample_data")
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
def shared_data() -> Path:
    """Real sample data beside the checkout; the test is skipped if there is none."""
    folder = os.environ.get(SAMPLE_DATA_VARIABLE, str(DEFAULT_SAMPLE_DATA))
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"no sample data: {SAMPLE_DATA_VARIABLE}={folder!r} is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def parsed_once() -> Iterator[None]:
    """Parsing the files of verl, Hydra and ours takes half of the time of composing: done once."""
    from config_copies import Original
    from omegaconf import OmegaConf

    folders = tuple(map(_folder_of, ("recipe.online_refiner", "verl", "hydra")))
    parsed: dict[str, Original] = {}
    parse = OmegaConf.load

    def load(file: Any) -> Any:
        name = str(getattr(file, "name", file))
        if not name.startswith(folders):
            return parse(file)
        if name not in parsed:
            parsed[name] = Original(parse(file))
        return parsed[name].copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", load)
        yield


def _folder_of(package: str) -> str:
    """Where a package lies; looked up and not imported, since verl takes seconds."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return spec.submodule_search_locations[0]

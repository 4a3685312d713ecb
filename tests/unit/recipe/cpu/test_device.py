"""The device module is torch.cpu and what verl wants besides."""

from __future__ import annotations

import pytest
import torch

from recipe.cpu import device

WANTED_BY_VERL = (
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "get_rng_state",
    "ipc_collect",
    "is_available",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "reset_peak_memory_stats",
    "set_device",
    "set_rng_state",
    "synchronize",
)


@pytest.mark.parametrize("name", WANTED_BY_VERL)
def test_every_function_that_verl_calls_is_there(name: str) -> None:
    assert callable(getattr(device, name))


def test_torch_cpu_lacks_some_of_them_and_is_left_as_it_is() -> None:
    assert not hasattr(torch.cpu, "memory_allocated")
    assert not hasattr(torch.cpu, "empty_cache")


def test_a_name_that_neither_has_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = device.no_such_function


def test_memory_figures_are_this_process_in_bytes() -> None:
    megabyte = 2**20
    assert 10 * megabyte < device.memory_allocated() <= device.max_memory_allocated()
    available, total = device.mem_get_info()
    assert 0 < available <= total


def test_the_random_state_restores_torch_draws() -> None:
    state = device.get_rng_state()
    first = torch.rand(3)
    device.set_rng_state(state)
    assert torch.equal(first, torch.rand(3))

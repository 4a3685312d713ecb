"""The hook that every Ray worker of a CPU run starts with."""

import gc
from collections.abc import Iterator
from importlib import import_module

import pytest
from hydra import compose, initialize_config_dir

from recipe.online_refiner.experiments import CONFIG

PYTHONS_OWN = (700, 10, 10)


@pytest.fixture
def fresh_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*PYTHONS_OWN)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("fresh_collector")
def test_the_configured_hook_is_a_function_that_lets_the_collector_rest() -> None:
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose("online_refiner", ["hardware=cpu_debug", "experiment=quickstart_sane"])
    hook = config.ray_kwargs.ray_init.runtime_env.worker_process_setup_hook
    module, name = hook.rsplit(".", 1)
    getattr(import_module(module), name)()
    assert gc.get_threshold() > PYTHONS_OWN

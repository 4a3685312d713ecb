"""The composed configuration, as the entry point sees it."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from config_copies import Original
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from wrong_configurations import ROW, change_keys, wrong_folders

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG

Compose = Callable[..., DictConfig]


@pytest.fixture(scope="session", autouse=True)
def quick_to_compose(parsed_once: None) -> None:
    """Nearly every test here composes."""


@pytest.fixture(scope="session")
def quickstart(parsed_once: None) -> Original:
    """The quickstart's configuration; composing takes most of a second, so it is done once."""
    groups = ["hardware=cpu_debug", "experiment=quickstart_stress"]
    with initialize_config_dir(str(CONFIG), version_base=None):
        return Original(compose("online_refiner", groups))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of models that are wrong in one respect, by their name in overrides: `<name>`."""
    return wrong_folders(tmp_path_factory.mktemp("wrong_models"))


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Sixteen rows that every check accepts."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([ROW] * 16), path)
    return path


@pytest.fixture
def composed(quickstart: Original, parquet: Path, folders: dict[str, str]) -> Compose:
    """The quickstart's configuration, in which everything can run, with `key=value` changes.

    In a value, the name of a folder of `folders` stands for its path.
    """

    def make(*changes: str) -> DictConfig:
        config = quickstart.copy()
        config.data.train_files = config.data.val_files = str(parquet)
        config.actor_rollout_ref.model.path = str(ensure_checkpoint())
        change_keys(config, changes, folders)
        return config

    return make

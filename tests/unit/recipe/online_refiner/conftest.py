"""The composed configuration, as the entry point sees it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

Compose = Callable[..., DictConfig]

ROW = {
    "data_source": "micro_apps",
    "prompt": [{"role": "user", "content": "Print the sum."}],
    "ability": "code",
    "reward_model": {"style": "rule", "ground_truth": "{}"},
    "extra_info": {"index": 0},
}


@pytest.fixture(scope="session")
def composing() -> Iterator[None]:
    with initialize_config_module("recipe.online_refiner.config", version_base=None):
        yield


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Sixteen rows that every check accepts."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([ROW] * 16), path)
    return path


@pytest.fixture
def composed(composing: None, parquet: Path) -> Compose:
    """Composes the quickstart's config with more overrides; everything in it can run."""
    from recipe.cpu.tiny_model import ensure_checkpoint

    def make(*overrides: str) -> DictConfig:
        return compose(
            "online_refiner",
            [
                "hardware=cpu_debug",
                "experiment=quickstart_stress",
                f"data.train_files={parquet}",
                f"data.val_files={parquet}",
                f"actor_rollout_ref.model.path={ensure_checkpoint()}",
                *overrides,
            ],
        )

    return make

"""What the trainer does about a lost server, and where an averaged refiner is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.servers.policy_average import FOLDER, PolicyAverage
from recipe.online_refiner.servers.refiner_servers import RefinerLostError, RefinerServers
from refiner_worker.replica_group import GroupHealth

Compose = Callable[..., DictConfig]


class ServersWith:
    """Stands where running servers would, with a given health."""

    def __init__(self, health: GroupHealth) -> None:
        self._health = health

    def health(self) -> GroupHealth:
        return self._health


def servers(config: DictConfig, health: GroupHealth) -> RefinerServers:
    made = RefinerServers(resolve(config))
    made._replicas = ServersWith(health)  # type: ignore[assignment]
    return made


LOST_ONE = GroupHealth(alive=1, lost_total=1, restarts_total=0, max_inflight=7)


def test_the_health_of_the_servers_is_logged(composed: Compose) -> None:
    assert servers(composed(), LOST_ONE).health_metrics() == {
        "refiner/replicas_alive": 1.0,
        "refiner/replicas_lost_total": 1.0,
        "refiner/replicas_restarted_total": 0.0,
        "refiner/queue_depth_max": 7.0,
    }


def test_a_lost_server_stops_the_run_only_where_that_is_asked_for(composed: Compose) -> None:
    goes_on = servers(composed(), LOST_ONE)
    goes_on.health_metrics()
    goes_on.stop_if_lost()
    stops = servers(composed("refiner.on_failure=stop"), LOST_ONE)
    stops.stop_if_lost()
    stops.health_metrics()
    assert stops.must_stop
    with pytest.raises(RefinerLostError, match=r"refiner\.on_failure=continue"):
        stops.stop_if_lost()


def test_without_a_loss_nothing_stops(composed: Compose) -> None:
    well = servers(composed("refiner.on_failure=stop"), GroupHealth(2, 0, 0, 0))
    well.health_metrics()
    well.stop_if_lost()


class Actor:
    """Writes down from where to where it was asked to average, and writes a file there."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, float]] = []

    def average_weights(self, folder: str, before: str | None, decay: float) -> None:
        self.asked.append((folder, before, decay))
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "weights").write_text(f"version {len(self.asked)}")


def test_the_first_average_starts_from_the_initial_model_and_the_next_from_the_first(
    tmp_path: Path,
) -> None:
    actor, average = Actor(), PolicyAverage(str(tmp_path))
    average.follow(actor, 0.9)
    average.follow(actor, 0.9)
    own = str(tmp_path / FOLDER)
    assert actor.asked == [(own, None, 0.9), (own, own, 0.9)]


def test_a_resumed_run_goes_on_from_the_checkpoints_average_not_from_the_runs(
    tmp_path: Path,
) -> None:
    actor, average = Actor(), PolicyAverage(str(tmp_path))
    checkpoint = tmp_path / "global_step_1"
    checkpoint.mkdir()
    average.follow(actor, 0.5)
    average.save(checkpoint)
    average.follow(actor, 0.5)
    resumed: Any = PolicyAverage(str(tmp_path))
    resumed.restore(checkpoint)
    assert resumed.path == checkpoint / FOLDER


def test_a_checkpoint_without_an_average_starts_from_the_initial_model(tmp_path: Path) -> None:
    average = PolicyAverage(str(tmp_path))
    (tmp_path / FOLDER).mkdir()
    average.restore(tmp_path / "global_step_1")
    assert average.path is None


def test_averages_of_checkpoints_that_verl_has_emptied_are_dropped(tmp_path: Path) -> None:
    actor, average = Actor(), PolicyAverage(str(tmp_path))
    average.follow(actor, 0.5)
    steps = [tmp_path / f"global_step_{step}" for step in (1, 2, 3)]
    for step in steps:
        (step / "actor").mkdir(parents=True)
        average.save(step)
    (steps[0] / "actor").rmdir()
    average.save(steps[2])
    assert [(step / FOLDER).exists() for step in steps] == [False, True, True]


CACHE = "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("trainer.device=cpu", f"{CACHE}=null"), True),
        (("trainer.device=cuda", f"{CACHE}=null"), False),
        (("trainer.device=cuda", f"{CACHE}=1000000000"), True),
        (("trainer.device=cuda", f"{CACHE}=null", "refiner.placement=pool"), True),
    ],
)
def test_servers_start_together_only_if_none_measures_the_memory_of_the_other(
    composed: Compose, overrides: tuple[str, ...], expected: bool
) -> None:
    assert resolve(composed(*overrides)).starts_servers_together is expected

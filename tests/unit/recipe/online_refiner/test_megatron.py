"""The constraint's configurations on Megatron: they compose and pass, or say why they cannot."""

from importlib import resources

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.preflight.rules import check_constraint
from recipe.online_refiner.resolve.resolving import resolve

ROUTER_REPLAY = "actor_rollout_ref.actor.megatron.router_replay.mode"
ADDS_ROWS = ["dynamic_dapo_apps_sft", "ppo_apps_dynamic_sft", "chord_phi_apps"]


def on_megatron(experiment: str) -> DictConfig:
    folder = resources.files("recipe.online_refiner") / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose(
            "online_refiner",
            ["hardware=gpu8x80", f"experiment={experiment}", "strategy=megatron"],
        )


def faults(config: DictConfig) -> list[str]:
    return list(check_constraint(resolve(config)))


@pytest.mark.parametrize("experiment", [*ADDS_ROWS, "dynamic_dapo_apps", "ppo_apps_dynamic"])
def test_every_injection_composes_with_megatron(experiment: str) -> None:
    config = on_megatron(experiment)
    assert config.actor_rollout_ref.actor.strategy == "megatron"
    assert faults(config) == []


@pytest.mark.parametrize("experiment", ADDS_ROWS)
def test_added_rows_are_refused_where_routes_are_replayed(experiment: str) -> None:
    config = on_megatron(experiment)
    OmegaConf.update(config, ROUTER_REPLAY, "R3")
    (fault,) = faults(config)
    assert fault.startswith(f"{ROUTER_REPLAY}='R3'")


def test_penalties_do_not_mind_replayed_routes() -> None:
    config = on_megatron("dynamic_dapo_apps")
    OmegaConf.update(config, ROUTER_REPLAY, "R3")
    assert faults(config) == []

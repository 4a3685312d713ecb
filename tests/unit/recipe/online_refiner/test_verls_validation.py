"""Keys that verl's own classes have no field for, refused by name before Ray starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError
from recipe.online_refiner.verls_validation import check_with_verl

Compose = Callable[..., DictConfig]
MODEL = "actor_rollout_ref.model"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            f"{MODEL}.use_rmpad=true",
            f"{MODEL}.use_rmpad: verl's HFModelConfig has no such key. Fix: did you mean "
            "use_remove_padding?",
        ),
        (
            "actor_rollout_ref.actor.fsdp_config.colour=1",
            "actor_rollout_ref.actor.fsdp_config.colour: verl's FSDPEngineConfig has no such key. "
            "Fix: leave it out",
        ),
        (
            "actor_rollout_ref.ref.colour=1",
            "actor_rollout_ref.ref.colour: verl's FSDPActorConfig has no such key. Fix: leave it "
            "out",
        ),
        (
            "actor_rollout_ref.rollout.agent.colour=1",
            "actor_rollout_ref.rollout.agent.colour: verl's AgentLoopConfig has no such key. Fix: "
            "leave it out",
        ),
    ],
)
def test_a_key_without_a_field_is_named_with_the_fix(
    composed: Compose, change: str, fault: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_with_verl(resolve(composed(change)))
    assert str(refused.value).splitlines() == [fault]


def test_a_target_that_is_no_class_is_verls_to_refuse(composed: Compose) -> None:
    with pytest.raises(ConfigError, match="verl refuses the config"):
        check_with_verl(resolve(composed("actor_rollout_ref.actor._target_=absent.module.Class")))


def test_dictionaries_without_a_class_take_any_key(composed: Compose) -> None:
    open_ = (
        f"{MODEL}._convert_=all",
        "actor_rollout_ref.rollout.engine_kwargs.vllm.colour=1",
        f"{MODEL}.override_config.x=1",
    )
    check_with_verl(resolve(composed(*open_)))

"""When a step needs the reference model."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from recipe.online_refiner.resolve import resolve
from recipe.online_refiner.trainer import OnlineRefinerTrainer


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("none", [True, False, True]), ("static_kl", [True, True, True])],
)
def test_static_kl_needs_the_reference_however_rarely_the_kl_is_watched(
    composed: Callable[..., DictConfig], kind: str, expected: list[bool]
) -> None:
    # verl's constructor wants a cluster.
    trainer = object.__new__(OnlineRefinerTrainer)
    trainer.plan = resolve(composed(f"constraint.kind={kind}", "monitor.kl_every_steps=2"))
    found = []
    for step in (1, 2, 3):
        trainer.global_steps = step
        found.append(trainer._watches_reference())
    assert found == expected

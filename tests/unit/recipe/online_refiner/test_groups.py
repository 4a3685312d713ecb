"""When groups without a signal are dropped."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from recipe.online_refiner.method.groups import filters_groups


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ({}, False),
        ({"filter_groups": None}, False),
        ({"filter_groups": {"metric": "score"}}, False),
        ({"filter_groups": {"enable": False}}, False),
        ({"filter_groups": {"enable": True}}, True),
    ],
)
def test_groups_are_dropped_if_the_filter_is_enabled(
    algorithm: dict[str, Any], expected: bool
) -> None:
    assert filters_groups(OmegaConf.create({"algorithm": algorithm})) is expected

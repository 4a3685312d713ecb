"""What surrounds a training, before anything of it is read."""

from __future__ import annotations

import pytest

from recipe.online_refiner.main import prepared
from recipe.online_refiner.settings import ConfigError


@pytest.mark.parametrize("launcher", ["no-such-value", "reward.apps", "", ".x", 0, []])
def test_a_launcher_that_cannot_be_is_named_with_a_fix(launcher: object) -> None:
    with pytest.raises(ConfigError, match=r"run\.launcher=.* Fix: null, or a module"):
        prepared(launcher)


def test_without_a_launcher_nothing_surrounds_a_training() -> None:
    with prepared(None) as value:
        assert value is None

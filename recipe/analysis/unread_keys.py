"""Configuration keys that make no difference: those that a run does not read, and those that only
one of two versions of the code knows.

A later version of this package, or of verl, has keys that an earlier one lacks. The earlier one did
what the later one does by default, so that a key at its default and an absent one are the same.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from recipe.analysis.flat_yaml import flat

Configuration = Mapping[str, str]
"""Dotted keys and their values as text; empty if it is unknown."""

UNSET = "null"


def default_of(key: str) -> str:
    """The value that a key has if nobody sets it, as far as this package knows."""
    return _defaults().get(key, UNSET)


@cache
def _of_one_kind() -> frozenset[str]:
    """Kinds of constraint with a section of their own below `constraint`."""
    sections = (key.split(".") for key in _defaults() if key.startswith("constraint."))
    return frozenset(parts[1] for parts in sections if len(parts) > 2)


@cache
def _defaults() -> Configuration:
    """The package's own configuration, read as a file: the trainer is not imported."""
    path = files("recipe").joinpath("online_refiner", "config", "online_refiner.yaml")
    return flat(path.read_text(encoding="utf-8")) or {}


def is_read(key: str, configuration: Configuration) -> bool:
    """Whether a run of this configuration takes notice of the key, as far as can be told."""
    if key.startswith("critic."):
        return _has_critic(configuration)
    kind = configuration.get("constraint.kind")
    kinds = _of_one_kind()
    own = next((name for name in kinds if key.startswith(f"constraint.{name}.")), None)
    return own is None or kind not in {*kinds, "dynamic", "none"} or kind == own


def _has_critic(configuration: Configuration) -> bool:
    """As verl decides: by the key, and if it is not set by the estimator; yes if neither is
    known.
    """
    enabled = configuration.get("critic.enable", UNSET)
    if enabled != UNSET:
        return enabled == "true"
    return configuration.get("algorithm.adv_estimator", "gae") in ("gae", UNSET)

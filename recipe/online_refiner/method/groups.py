"""Which groups DAPO's dynamic sampling drops, if refinements count in it."""

from __future__ import annotations

from omegaconf import DictConfig, open_dict

from recipe.online_refiner.choices import REFINABLE
from recipe.online_refiner.settings import Settings


def filters_groups(config: DictConfig) -> bool:
    """Whether groups without a signal are dropped."""
    filters = config.algorithm.get("filter_groups")
    return bool(filters and filters.get("enable"))


def let_refinements_keep_groups(config: DictConfig, settings: Settings) -> None:
    """With dynamic sampling and `keep_refined_groups`, let an accepted refinement keep a group.

    Sets the metric by which verl compares the rollouts of a group, in place.
    """
    if not (settings.constraint.keep_refined_groups and filters_groups(config)):
        return
    metric = config.algorithm.filter_groups.metric
    if metric is not None and not metric.startswith(REFINABLE):
        with open_dict(config):
            config.algorithm.filter_groups.metric = REFINABLE + metric

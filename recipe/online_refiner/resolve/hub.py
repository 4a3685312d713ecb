"""Whether the hub of models answers, asked once: without one its client tries for a minute each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants, get_session
from omegaconf import DictConfig, OmegaConf

MODEL_KEYS = (
    *("actor_rollout_ref.model.path", "actor_rollout_ref.model.tokenizer_path"),
    *("refiner.model_path", "critic.model.path", "reward.reward_model.model_path"),
)


def go_offline_without_hub(config: DictConfig) -> None:
    """If a model is named that is no folder here, and no hub answers: use what is cached alone.

    As HF_HUB_OFFLINE=1 does, and in this process only.
    """
    if not constants.is_offline_mode() and any(hub_names(config)) and not hub_answers():
        constants.HF_HUB_OFFLINE = True


def hub_names(config: DictConfig) -> Iterator[str]:
    """The models of the config that are no folders of this machine."""
    for key in MODEL_KEYS:
        name = OmegaConf.select(config, key)
        if name is not None and not looks_local(str(name)):
            yield str(name)


def looks_local(name: str) -> bool:
    """Whether it can be no name of a hub's: a path, or a folder that is there."""
    return name.startswith(("/", ".", "~")) or Path(name).is_dir()


@functools.cache
def hub_answers() -> bool:
    """Whether a request reaches the hub; one try, whatever it answers."""
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # the errors of whichever HTTP client the library uses: all mean no answer
        return False
    return True


def unread_name(name: str) -> str:
    """Why a name that is no folder could not be read if no hub is asked; empty if one is."""
    if looks_local(name) or not constants.is_offline_mode():
        return ""
    return (
        f"it is no folder, it is not in the cache {constants.HF_HUB_CACHE} (HF_HOME), and no hub "
        "was asked: HF_HUB_OFFLINE is set, or none answered"
    )

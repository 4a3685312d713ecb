"""Whether the keys of verl and of Ray have values of their types, before anything uses them.

verl's configuration is untyped until its classes are made, in the middle of a start. A value of a
wrong type, or out of range, is refused here, so that the rules of `preflight/` can rely on both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf import errors as omegaconf_errors
from pydantic import ConfigDict, TypeAdapter, ValidationError

from recipe.online_refiner.resolve.verl_keys import KINDS
from recipe.online_refiner.settings import wanted

MAY_BE_NULL = (
    *("machine", "ray_kwargs.ray_init.runtime_env", "data.apply_chat_template_kwargs"),
    "algorithm.rollout_correction",
)
"""Sections that may be null, which is as if they were not there."""
MACHINE_NEEDS = ("gpu_memory_gib", "gpus_per_node", "nodes")
OWN_SECTIONS = ("constraint", "refiner", "monitor", "run")
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_ADAPTERS = {key: TypeAdapter(kind, config=_STRICT) for key, kind in KINDS.items()}


def key_faults(config: DictConfig) -> Iterator[str]:
    """A sentence for each key of `KINDS` with a value of a wrong type or out of range."""
    sections = _Sections(config)
    for section in OWN_SECTIONS:
        sections.holder(section)
    for key in KINDS:
        section, _, last = key.rpartition(".")
        holder = sections.holder(section)
        if holder is not None and last in holder and not OmegaConf.is_missing(holder, last):
            yield from _value_fault(holder, last, key)
    for name, value in sections.broken.items():
        yield f"{name}={value!r}: it is a section of keys. Fix: set the keys below it"
    machine, device = sections.holder("machine"), OmegaConf.select(config, "trainer.device")
    if machine is not None:
        yield from _machine_faults(machine, () if device == "cpu" else MACHINE_NEEDS)


def _machine_faults(machine: DictConfig, needed: Iterable[str]) -> Iterator[str]:
    """Nothing but the preflight reads the section `machine`: no other key, and what it needs."""
    known = [key.removeprefix("machine.") for key in KINDS if key.startswith("machine.")]
    for name in machine:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            yield (
                f"machine.{name}={machine[name]!r}: unknown key. Fix: {meant}The keys here are "
                f"{', '.join(known)}"
            )
    for name in needed:
        if name not in machine:
            yield f"machine.{name}: missing. Fix: +machine.{name}=NUMBER, or machine=null"


class _Sections:
    """Sections by their dotted names, each looked up once.

    Attributes:
        broken: what stands in place of a section.
    """

    def __init__(self, config: DictConfig) -> None:
        self._found: dict[str, DictConfig | None] = {"": config}
        self.broken: dict[str, Any] = {}

    def holder(self, name: str) -> DictConfig | None:
        """The section; None if it, or one above it, is not there or is none."""
        if name not in self._found:
            above, _, last = name.rpartition(".")
            self._found[name] = self._below(self.holder(above), last, name)
        return self._found[name]

    def _below(self, above: DictConfig | None, last: str, name: str) -> DictConfig | None:
        if above is None or last not in above or OmegaConf.is_missing(above, last):
            return None
        value = above[last]
        if isinstance(value, DictConfig):
            return value
        may_be_null = name in MAY_BE_NULL or type(None) in getattr(KINDS.get(name), "__args__", ())
        if name not in KINDS and not (value is None and may_be_null):
            self.broken[name] = value  # a section that is typed itself is refused by its type
        return None


def strategy_faults(config: DictConfig) -> Iterator[str]:
    """The actor's strategy has its section: which engine's keys there are is a group's choice."""
    actor = config.actor_rollout_ref.actor
    wanted = {"megatron": "megatron", "fsdp": "fsdp_config", "fsdp2": "fsdp_config"}
    section = wanted.get(actor.strategy)
    if section is not None and actor.get(section) is None:
        group = "megatron or megatron_tp8" if section == "megatron" else "fsdp2 or fsdp2_offload"
        yield (
            f"actor_rollout_ref.actor.strategy={actor.strategy}: there are no keys "
            f"actor_rollout_ref.actor.{section}. Fix: choose the group, strategy={group}"
        )


def _value_fault(holder: DictConfig, last: str, key: str) -> Iterator[str]:
    try:
        value = holder[last]
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        _ADAPTERS[key].validate_python(plain)
    except ValidationError as error:
        yield f"{key}={plain!r} is refused. Fix: set it to {wanted(error.errors()[0])}"
    except omegaconf_errors.OmegaConfBaseException as error:
        yield f"{key}: {str(error).splitlines()[0]}. Fix: set it to a value of its own"

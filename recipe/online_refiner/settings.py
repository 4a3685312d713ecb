"""Our part of the config, typed: unknown keys, wrong types and values out of range are refused.

Checks that need more than our own keys (files, models, verl's keys) are in `checks.py`.
"""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from recipe.online_refiner.constraint import Align, Filter, Reduce, Tokens
from recipe.online_refiner.feedback import Feedback
from recipe.online_refiner.schedules import Schedule
from refiner_worker.engine import Decoding


class ConfigError(ValueError):
    """The config cannot mean anything; the message names each key, its value and the fix."""


class Kind(StrEnum):
    """Which constraint holds the policy (`constraint.kind`)."""

    NONE = "none"
    STATIC_KL = "static_kl"
    DYNAMIC = "dynamic"
    CHORD = "chord"


class Inject(StrEnum):
    """Where the dynamic constraint enters (`constraint.inject`)."""

    REWARD = "reward"
    ADVANTAGE = "advantage"
    SFT = "sft"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class StaticKl(_Section):
    """verl's own KL against the reference: its coefficient, in the loss or in the reward."""

    coef: float = Field(ge=0)
    where: Literal["loss", "reward"]


class Chord(_Section):
    """CHORD's μ schedule in training steps, and whether its token factor φ is on."""

    warmup_steps: int = Field(ge=0)
    decay_steps: int = Field(ge=0)
    peak: float = Field(ge=0, le=1)
    valley: float = Field(ge=0, le=1)
    phi: bool


class ConstraintSettings(_Section):
    """The section `constraint`. `lambda_` is the key `lambda`, a word that Python keeps."""

    kind: Kind
    inject: Inject
    lambda_: float = Field(alias="lambda", ge=0)
    lambda_end: float = Field(ge=0)
    schedule: Schedule
    adaptive_target: float = Field(gt=0, le=1)
    filter: Filter
    reduce: Reduce
    align: Align
    tokens: Tokens
    keep_refined_groups: bool
    static_kl: StaticKl
    chord: Chord

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults_of_the_injection(cls, section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        sft = section.get("inject") == Inject.SFT
        filled = dict(section)
        _fill(filled, "lambda", 1.0 if sft else 1e-4)
        adapts = section.get("schedule") == Schedule.ADAPTIVE
        _fill(filled, "lambda_end", 0.0 if adapts else filled["lambda"])
        _fill(filled, "reduce", Reduce.MEAN if sft else Reduce.SUM)
        return filled


class PoolSettings(_Section):
    """The refiner's own GPUs, used where `refiner.placement` is `pool`."""

    n_gpus_per_node: int = Field(ge=1)
    nnodes: int = Field(ge=1)


class AverageSettings(_Section):
    """The policy's moving average, used where `refiner.source` is `ema`."""

    decay: float = Field(ge=0, lt=1)
    every_steps: int = Field(ge=1)


class RefinerSettings(_Section):
    """The section `refiner`."""

    observe: bool
    placement: Literal["colocated", "pool", "shared_base"]
    pool: PoolSettings
    source: Literal["reference", "model", "ema"]
    model_path: str | None
    ema: AverageSettings
    template: str
    temperature: float = Field(ge=0)
    decoding: Decoding
    feedback: Feedback
    block_tokens: int | None = Field(ge=1)
    perfect_reward: float | None
    max_prompt_length: int | None = Field(ge=1)
    max_concurrency: int = Field(ge=1)
    deadline_s: float = Field(gt=0)
    step_deadline_s: float | None = Field(gt=0)
    on_failure: Literal["continue", "stop"]
    watch_every_s: float = Field(gt=0)
    rollout: dict[str, Any]


class MonitorSettings(_Section):
    """The section `monitor`."""

    kl_to_reference: bool
    kl_every_steps: int = Field(ge=1)


class RunSettings(_Section):
    """The section `run`: where a run writes, and what it calls itself."""

    dir: str = Field(min_length=1)
    arm: str = Field(min_length=1)
    setting: str = Field(min_length=1)
    seed: int = Field(ge=0)


class Settings(_Section):
    """All sections that are ours."""

    constraint: ConstraintSettings
    refiner: RefinerSettings
    monitor: MonitorSettings
    run: RunSettings

    @property
    def refines(self) -> bool:
        """Whether a refiner runs at all: to constrain, or only to be looked at."""
        return self.constraint.kind is Kind.DYNAMIC or self.refiner.observe

    @property
    def shares_base(self) -> bool:
        """Whether the policy's servers refine, on their base weights."""
        return self.refines and self.refiner.placement == "shared_base"

    @property
    def refines_by_average(self) -> bool:
        """Whether the refiner is a moving average of the policy."""
        return self.refines and self.refiner.source == "ema"

    @property
    def has_refiner_servers(self) -> bool:
        """Whether the refiner has servers beside the policy's."""
        return self.refines and not self.shares_base

    def injects(self, where: Inject) -> bool:
        """Whether the dynamic constraint enters there."""
        return self.constraint.kind is Kind.DYNAMIC and self.constraint.inject is where

    @property
    def adds_rows(self) -> bool:
        """Whether the actor's update sees (s0, a') or expert rows beside the policy's."""
        return self.injects(Inject.SFT) or self.constraint.kind is Kind.CHORD


def read_settings(config: DictConfig) -> Settings:
    """Our sections of the whole config; raises ConfigError listing every fault with its fix."""
    sections = {
        name: OmegaConf.to_container(config[name], resolve=True) for name in Settings.model_fields
    }
    try:
        return Settings.model_validate(sections)
    except ValidationError as error:
        raise ConfigError("\n".join(_message(fault) for fault in error.errors())) from None


def _fill(section: dict[str, Any], key: str, default: Any) -> None:
    if section.get(key) is None:
        section[key] = default


def _message(fault: ErrorDetails) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key. Fix: {_nearest(fault['loc'])}"
    if fault["type"] == "missing":
        return f"{key}: missing. Fix: set it, or leave its line in the config as it was"
    reason = fault["msg"].removeprefix("Input should be ")
    return f"{key}={fault['input']!r} is refused. Fix: set it to {reason}"


def _nearest(location: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = Settings
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        section = annotation
    known = [field.alias or name for name, field in section.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"remove it; the keys here are {', '.join(known)}"

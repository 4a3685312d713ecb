"""Our part of the config, typed: unknown keys, wrong types and values out of range are refused.

Checks that need more than our own keys (files, models, verl's keys) are rules of `preflight/`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from omegaconf import DictConfig, OmegaConf
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from recipe.online_refiner.choices import (
    Accumulate,
    Align,
    Conditioning,
    Feedback,
    Filter,
    Inject,
    Placement,
    Reduce,
    Schedule,
    Source,
    Tokens,
)
from refiner_worker.engine import Decoding

MOST_COEFFICIENT = 1e4
MOST_TEMPERATURE = 10.0
MOST_TOKENS = 1 << 24
MOST_NODES = 4096
MOST_NODE_GPUS = 128
MOST_SEED = (1 << 32) - 1
"""NumPy takes no larger one."""
MOST_SECONDS = 1e7
"""Bounds above which a value is a slip of the keyboard (ours)."""
LEAST_DEADLINE_S = 1.0
"""No server writes a refinement in less (ours)."""
LEAST_WATCH_S = 0.1
NO_FOLDERS = (".", "..")


def _one_folder(name: str) -> str:
    """Runs lie in folders of these names, and reports join them by a slash."""
    if "/" in name or name in NO_FOLDERS:
        raise ValueError("a name without a slash, which a folder can have")
    return name


FolderName = Annotated[str, Field(min_length=1), AfterValidator(_one_folder)]


class ConfigError(ValueError):
    """The config cannot mean anything; the message names each key, its value and the fix."""


class Section(BaseModel):
    """A section of the config; a constraint derives the type of its own keys from it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_switches(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        kinds = {kind, *get_args(kind)}
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("a number")
        if isinstance(value, int | float) and not isinstance(value, bool) and bool in kinds:
            raise ValueError("true or false")
        return value


OwnSection = TypeVar("OwnSection", bound=Section)


class ConstraintSettings(Section):
    """The section `constraint`: the keys that constraints share, and those of each by its name.

    `lambda_` is the key `lambda`, which is a keyword of Python. `kind` names the constraint, and
    which names there are is for `method.registry` to say.
    """

    kind: str
    inject: Inject
    lambda_: float = Field(alias="lambda", ge=0, le=MOST_COEFFICIENT)
    lambda_end: float = Field(ge=0, le=MOST_COEFFICIENT)
    schedule: Schedule
    adaptive_target: float = Field(gt=0, le=1)
    filter: Filter
    conditioning: Conditioning
    reduce: Reduce
    align: Align
    accumulate: Accumulate
    tokens: Tokens
    keep_refined_groups: bool
    _own: dict[str, Section] = PrivateAttr(default_factory=dict)

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
        reading = Conditioning.TEACHER_FORCING if sft else Conditioning.SELF_FEEDING
        _fill(filled, "conditioning", reading)
        return filled

    def own(self, kind: type[OwnSection]) -> OwnSection:
        """The section of this type, which belongs to one constraint alone."""
        (found,) = [section for section in self._own.values() if isinstance(section, kind)]
        return found

    def dump(self) -> dict[str, Any]:
        """All keys as plain values, in the form of the config."""
        own = {name: section.model_dump(mode="json") for name, section in self._own.items()}
        return self.model_dump(mode="json", by_alias=True) | own


class PoolSettings(Section):
    """The refiner's own GPUs, used with `refiner.placement=pool`."""

    n_gpus_per_node: int = Field(ge=1, le=MOST_NODE_GPUS)
    nnodes: int = Field(ge=1, le=MOST_NODES)


class AverageSettings(Section):
    """The policy's moving average, used with `refiner.source=ema`."""

    decay: float = Field(ge=0, lt=1)
    every_steps: int = Field(ge=1)


class RefinerSettings(Section):
    """The section `refiner`."""

    observe: bool
    placement: Placement
    pool: PoolSettings
    source: Source
    model_path: str | None
    ema: AverageSettings
    template: str
    temperature: float = Field(ge=0, le=MOST_TEMPERATURE)
    decoding: Decoding
    feedback: Feedback
    block_tokens: int | None = Field(ge=1, le=MOST_TOKENS)
    perfect_reward: float | None
    max_prompt_length: int | None = Field(ge=1, le=MOST_TOKENS)
    max_concurrency: int = Field(ge=1, le=1_000_000)
    deadline_s: float = Field(ge=LEAST_DEADLINE_S, le=MOST_SECONDS)
    step_deadline_s: float | None = Field(ge=LEAST_DEADLINE_S, le=MOST_SECONDS)
    late_join: bool | None
    on_failure: Literal["continue", "stop"]
    watch_every_s: float = Field(ge=LEAST_WATCH_S, le=MOST_SECONDS)
    rollout: dict[str, Any]


class MonitorSettings(Section):
    """The section `monitor`."""

    kl_to_reference: bool
    kl_every_steps: int = Field(ge=1)
    self_fed_ce: bool


class RunSettings(Section):
    """The section `run`: where a run writes, what it calls itself, and how it is launched."""

    dir: str = Field(min_length=1)
    arm: FolderName
    setting: FolderName
    seed: int = Field(ge=0, le=MOST_SEED)
    log_share: float = Field(ge=0, le=1)
    hardware: str | None
    launcher: str | None


class Settings(Section):
    """All sections that are ours."""

    constraint: ConstraintSettings
    refiner: RefinerSettings
    monitor: MonitorSettings
    run: RunSettings


def read_settings(config: DictConfig, own: Mapping[str, type[Section]]) -> Settings:
    """Our sections of the whole config; raises ConfigError listing every fault with its fix.

    Args:
        own: the type of each key of `constraint` that belongs to one constraint alone.
    """
    sections: dict[str, Any] = {
        name: OmegaConf.to_container(config[name], resolve=True) for name in Settings.model_fields
    }
    theirs, faults = _read_own(sections["constraint"], own)
    try:
        settings = Settings.model_validate(sections)
    except ValidationError as error:
        given = sections["constraint"]
        faults += [_message(one, own) for one in error.errors() if not _is_of_lambda(one, given)]
    if faults:
        raise ConfigError("\n".join(faults))
    settings.constraint._own.update(theirs)
    return settings


def _read_own(
    constraint: dict[str, Any], own: Mapping[str, type[Section]]
) -> tuple[dict[str, Section], list[str]]:
    """Take the constraints' own sections out of `constraint`, typed, with their faults."""
    found, faults = {}, []
    for name, section in own.items():
        try:
            found[name] = section.model_validate(constraint.pop(name, {}))
        except ValidationError as error:
            for fault in error.errors():
                fault["loc"] = ("constraint", name, *fault["loc"])
                faults.append(_message(fault, own))
    return found, faults


def _fill(section: dict[str, Any], key: str, default: Any) -> None:
    if section.get(key) is None:
        section[key] = default


def _is_of_lambda(fault: ErrorDetails, constraint: Mapping[str, Any]) -> bool:
    """Whether it is about the value that `lambda_end` has from `lambda`, which is told already."""
    return fault["loc"] == ("constraint", "lambda_end") and constraint.get("lambda_end") is None


def _message(fault: ErrorDetails, own: Mapping[str, type[Section]]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key. Fix: {_nearest(fault['loc'], own)}"
    if fault["type"] == "missing":
        return f"{key}: missing. Fix: set it, or leave its line in the config as it was"
    return f"{key}={fault['input']!r} is refused. Fix: set it to {wanted(fault)}"


def wanted(fault: ErrorDetails) -> str:
    """What a value should have been, to follow "set it to"."""
    if fault["type"] == "string_too_short":
        return "a text that is not empty"
    return fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _nearest(location: tuple[int | str, ...], own: Mapping[str, type[Section]]) -> str:
    section: type[BaseModel] = Settings
    for part in location[:-1]:
        if section is ConstraintSettings and part in own:
            section = own[str(part)]
            continue
        annotation = section.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        section = annotation
    known = [field.alias or name for name, field in section.model_fields.items()]
    if section is ConstraintSettings:
        known += own
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"remove it; the keys here are {', '.join(known)}"

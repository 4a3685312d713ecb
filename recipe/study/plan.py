"""A study's YAML file, typed: what is trained, what is measured, and what is tested.

It is written before the runs, so that outcome, comparisons and level are fixed when results come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

TINY, SMOLLM2, TAUGHT_SMOLLM2 = "tiny", "smollm2", "smollm2_micro_apps"
"""Values of `model` for the checkpoint that comes with the package, for the pretrained model of
`recipe.cpu.pretrained_model`, and for the same one after the lessons of
`recipe.cpu.taught_smollm2`."""
CPU_HARDWARE = "hardware=cpu_debug"


class StudyError(ValueError):
    """The file cannot be meant; the message names key, value and fix."""


class Section(BaseModel):
    """A section of the file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MicroApps(Section):
    """How many problems are generated, the same in all runs; `seed` is theirs."""

    train: int = Field(default=1024, ge=1)
    test: int = Field(default=64, ge=1)
    seed: int = 0


class Data(Section):
    """What is trained and validated on: generated problems, or two prepared parquet files."""

    micro_apps: MicroApps | None = None
    train: Path | None = None
    test: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        files = (self.train is not None, self.test is not None)
        if any(files) == (self.micro_apps is not None) or any(files) != all(files):
            raise ValueError("give either micro_apps, or both train and test")
        return self


class Arm(Section):
    """What sets an arm apart: keys of the configuration, and seeds where it has its own."""

    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None

    @field_validator("overrides")
    @classmethod
    def _assignments(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if "=" not in one:
                raise ValueError(f"{one!r} is not of the form KEY=VALUE")
        return value


class Study(Section):
    """One study.

    Attributes:
        name: of its folder. question: what it is to answer.
        setting: the runs' `run.setting`. base: keys that all runs share, `hardware=` among them.
        model: a folder or hub id, `tiny`, `smollm2` or `smollm2_micro_apps`. steps: training steps
            of each run.
        seeds: of every arm that has none of its own. limit_s: seconds after which a run is given
            up. attempts: how often a run that fails is tried. threads: of each process on the CPU.
        outcome: pattern of the metric that is compared, at the last step; `outcome_title`: what it
            is called.
        families: comparisons by family, each a pair of arms, the first minus the second; a family
            shares one level.
        panels: what is drawn and tabled beside the outcome: title to pattern of the metric.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    question: str
    setting: str
    base: tuple[str, ...]
    model: str = TINY
    data: Data
    steps: int = Field(ge=1)
    seeds: tuple[int, ...]
    limit_s: float = Field(default=float("inf"), gt=0)
    attempts: int = Field(default=2, ge=1)
    threads: int = Field(default=1, ge=1)
    arms: dict[str, Arm]
    outcome: str = "val-core/*/reward/mean@*"
    outcome_title: str = "Held-out reward"
    level: float = Field(default=0.05, gt=0, lt=1)
    families: dict[str, tuple[tuple[str, str], ...]] = Field(default_factory=dict)
    panels: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _compares_its_own_arms(self) -> Study:
        for family, pairs in self.families.items():
            for arm in (arm for pair in pairs for arm in pair):
                if arm not in self.arms:
                    known = ", ".join(self.arms)
                    raise ValueError(f"families.{family}: {arm!r} is no arm; there are {known}")
        return self

    @property
    def on_cpu(self) -> bool:
        """Whether the runs need what `recipe.cpu` sets."""
        return CPU_HARDWARE in self.base

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds of an arm."""
        own = self.arms[arm].seeds
        return self.seeds if own is None else own


def read_study(path: Path) -> Study:
    """The study of a YAML file.

    Raises StudyError where the file is missing, is no YAML, or holds what cannot be meant.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}). Fix: name a file") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{path}: no YAML ({error}). Fix: see docs/study.md") from error
    return study_of(content, str(path))


def study_of(content: Any, origin: str) -> Study:
    """The study of a parsed file; see `read_study`."""
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        lines = [
            f"{origin}: {'.'.join(map(str, one['loc'])) or 'the file'}={_shown(one['input'])}: "
            f"{one['msg']}. Fix: see docs/study.md#the-file"
            for one in error.errors()
        ]
        raise StudyError("\n".join(lines)) from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"

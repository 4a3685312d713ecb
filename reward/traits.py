"""The contract of a reward function: what it returns, and what its module declares of it.

A reward function is verl's `compute_score(data_source, solution_str, ground_truth, extra_info,
**reward_kwargs)`, plain or async, in a module or file that `reward.custom_reward_function.path`
names. It returns `RewardExtras`. The module may hold `TRAITS = RewardTraits(…)`; without it,
nothing but a score is expected of the function.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Required, TypedDict

PACKAGE = "pkg://"
"""Prefix of a path that is a module's dotted name (verl's)."""


class RewardExtras(TypedDict, total=False):
    """What a reward function returns: the same keys for every response, plain values.

    `score` is the task's reward before any shaping: what the filter compares, R(a) and R(a').
    `judge_failed` is 1.0 if there is no verdict, through no fault of the response; such a sample is
    masked out, and its score ignored. The others are for feedback and logs.
    """

    score: Required[float]
    judge_failed: float
    verdict: str
    passed: int
    total: int
    failing_test: str


@dataclass(frozen=True)
class Inspection:
    """What a reward function finds before a run starts.

    Attributes:
        faults: sentences with value and fix, without the key `reward_kwargs`.
        isolation_level: of untrusted programs on this node; None if it runs none.
    """

    faults: tuple[str, ...] = ()
    isolation_level: int | None = None


@dataclass(frozen=True)
class RewardTraits:
    """What a module declares of its reward function.

    Attributes:
        tells_verdict: every result has a `verdict`.
        failing_test_setting: the setting with which results have a `failing_test`; empty if it
            cannot tell one.
        asks_reward_model: whether it scores by a served reward model; None if it does not say.
        asks_classifier: whether this reward model has to be a classifier with one label.
        task: what it judges; a built-in refiner template of another task does not fit it. Empty if
            it does not say.
        numbers: the keys of its results that are numbers, beside `score`; none if it does not say.
        best_score: the highest `score` under these settings; None if there is none, or it is not
            known.
        row_fault: why a row, as a dict of its columns, cannot be scored; empty if it can.
        inspect: looks at the settings, and at this node, before a run starts.
    """

    tells_verdict: bool = False
    failing_test_setting: str = ""
    asks_reward_model: bool | None = None
    asks_classifier: bool = False
    task: str = ""
    numbers: tuple[str, ...] = ()
    best_score: Callable[[Mapping[str, Any]], float] | None = None
    row_fault: Callable[[Mapping[str, Any]], str] | None = None
    inspect: Callable[[Mapping[str, Any]], Inspection] | None = None


def load_reward(path: str) -> ModuleType:
    """The module of `pkg://dotted.name` or of a file; raises ImportError or OSError.

    Whatever else its code raises while it is loaded, as a file that does not compile, is an
    ImportError with the class and the text of it.
    """
    try:
        return _loaded(path)
    except (ImportError, OSError):
        raise
    except Exception as error:  # a user's code may raise anything
        raise ImportError(f"{type(error).__name__}: {error}") from error


def _loaded(path: str) -> ModuleType:
    if path.startswith(PACKAGE):
        return importlib.import_module(path.removeprefix(PACKAGE))
    file = Path(path).expanduser()
    if not file.is_file():
        raise ImportError(f"{path} is no file")
    spec = importlib.util.spec_from_file_location(f"reward_of_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def traits_of(path: str | None) -> RewardTraits:
    """What the module declares; nothing if there is none or it cannot be imported."""
    if path is None:
        return RewardTraits()
    try:
        module = load_reward(path)
    except (ImportError, OSError):
        return RewardTraits()
    traits = getattr(module, "TRAITS", RewardTraits())
    if not isinstance(traits, RewardTraits):
        raise TypeError(f"{path}: TRAITS must be a reward.traits.RewardTraits, not {traits!r}")
    return traits

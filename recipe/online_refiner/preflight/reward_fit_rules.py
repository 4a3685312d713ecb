"""Rules on whether the reward function fits its settings, the rows and the reward model."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from recipe.online_refiner.plan import RunPlan, paths_of
from recipe.online_refiner.preflight.data_rules import check_files
from recipe.online_refiner.preflight.readings import model_config
from recipe.online_refiner.preflight.reward_rules import as_plain
from reward.traits import load_reward, traits_of

GIVEN = ("data_source", "solution_str", "ground_truth", "extra_info")
"""What verl hands every reward function."""
GIVEN_WITH_MODEL = ("reward_router_address", "reward_model_tokenizer")
"""What it adds if a reward model is served."""
MAX_ROWS_TRIED = 64
CLASSIFIER = "ForSequenceClassification"
_KEY = "reward.custom_reward_function"


def check_reward_settings(plan: RunPlan) -> Iterator[str]:
    """The function takes what `reward_kwargs` and verl give it, and gets what it asks for."""
    function = _function(plan)
    if function is None:
        yield from _missing_function(plan)
        return
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    takes_any = len(named) < len(parameters)
    settings = _settings(plan)
    served = GIVEN_WITH_MODEL if plan.config.reward.reward_model.enable else ()
    for name in () if takes_any else served:
        if name not in named:
            yield (
                f"{_KEY}.name={_name(plan)!r}: verl hands it {name} if a reward model is served, "
                f"and it takes none. Fix: a parameter {name} or **others, or "
                "reward.reward_model.enable=False"
            )
    for name in settings if not takes_any else ():
        if name not in named:
            near = difflib.get_close_matches(name, named, n=1)
            fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(named[4:]) or 'none'}"
            yield f"{_KEY}.reward_kwargs.{name}: the function takes no such setting. Fix: {fix}"
    for parameter in parameters:
        given = parameter.name in (*GIVEN, *served, *settings)
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if required and not given:
            yield (
                f"{_KEY}.reward_kwargs: the function asks for {parameter.name}, and nothing gives "
                f"it. Fix: set {_KEY}.reward_kwargs.{parameter.name}"
            )
    yield from _type_faults(function, settings)


def _type_faults(function: Callable[..., Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Numbers, words and switches as the function's own types say."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        return  # types of the user's own that only their module knows
    fits: dict[Any, tuple[type, ...]] = {
        int: (int,),
        float: (int, float),
        str: (str,),
        bool: (bool,),
    }
    for name, value in settings.items():
        wanted = hints.get(name)
        if wanted is None or wanted not in fits:
            continue
        good = isinstance(value, fits[wanted]) and (wanted is bool or not isinstance(value, bool))
        if not good:
            yield (
                f"{_KEY}.reward_kwargs.{name}={value!r} is refused. Fix: a value of type "
                f"{wanted.__name__}"
            )


def _missing_function(plan: RunPlan) -> Iterator[str]:
    path, name = plan.config.reward.custom_reward_function.path, _name(plan)
    if path is None:
        return
    try:
        module = load_reward(path)
    except (ImportError, OSError):
        return  # `check_reward` says so
    own = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    near = difflib.get_close_matches(name, own, n=1)
    meant = near[0] if near else "the name of a function in it"
    yield f"{_KEY}.name={name!r}: {path} has no such function. Fix: {_KEY}.name={meant}"


def _function(plan: RunPlan) -> Callable[..., Any] | None:
    path = plan.config.reward.custom_reward_function.path
    if path is None:
        return None
    try:
        found = getattr(load_reward(path), _name(plan), None)
    except (ImportError, OSError):
        return None
    return found if callable(found) else None


def _name(plan: RunPlan) -> str:
    return str(plan.config.reward.custom_reward_function.name)


def _settings(plan: RunPlan) -> dict[str, Any]:
    given = plan.config.reward.custom_reward_function.get("reward_kwargs")
    return {} if given is None else as_plain(given)


def check_reward_rows(plan: RunPlan) -> Iterator[str]:
    """The rows have what the reward function scores by; a few malformed ones do not count."""
    path = plan.config.reward.custom_reward_function.path
    fault_of = traits_of(path).row_fault
    if fault_of is None or any(check_files(plan)):
        return
    for key in ("train_files", "val_files"):
        for file in paths_of(plan.config.data[key]):
            found = [fault_of(row) for row in _first_rows(file)]
            if found and all(found):
                yield (
                    f"{_KEY}.path={path!r}: it cannot score the rows of data.{key}={file!r}: "
                    f"{found[0]}. Fix: the data that belong to it, or another {_KEY}.path"
                )


def _first_rows(path: str) -> list[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        columns = [
            name for name in ("reward_model", "extra_info") if name in file.schema_arrow.names
        ]
        batch = next(file.iter_batches(MAX_ROWS_TRIED, columns=columns), None)
    return [] if batch is None else batch.to_pylist()


def check_reward_architecture(plan: RunPlan) -> Iterator[str]:
    """A reward model that is asked for a score is a classifier with one label."""
    section = plan.config.reward.reward_model
    asks = traits_of(plan.config.reward.custom_reward_function.path).asks_classifier
    if not (section.enable and asks and section.model_path):
        return
    config = model_config(section.model_path)
    if isinstance(config, str):
        return  # `check_shapes` says so
    named = f"reward.reward_model.model_path={section.model_path!r}"
    architectures = list(getattr(config, "architectures", None) or [])
    if not any(name.endswith(CLASSIFIER) for name in architectures):
        yield (
            f"{named}: its config.json names the architecture {', '.join(architectures) or 'none'},"
            f" which gives no score. Fix: a reward model, whose architecture is a …{CLASSIFIER}"
        )
    elif config.num_labels != 1:
        yield (
            f"{named}: its head has {config.num_labels} labels, and a score is one. Fix: a reward "
            'model with "num_labels": 1 in its config.json'
        )

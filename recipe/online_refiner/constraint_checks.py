"""Start-up checks of the constraint against verl's keys: what cannot mean anything is refused."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe.online_refiner.refiner_engine import decoding_choice, engine_name
from recipe.online_refiner.schedules import Schedule
from recipe.online_refiner.settings import Inject, Kind, Settings
from recipe.online_refiner.verl_keys import ESTIMATORS, refined_name
from refiner_worker.acceptance import Law
from refiner_worker.engine import SUFFIX_TREES, Decoding, server_overrides

ROUTER_REPLAY = "actor_rollout_ref.actor.megatron.router_replay.mode"
ADDED_ROWS = "constraint.inject=sft and constraint.kind=chord add rows to the actor's mini-batches"


def paths_of(value: str | ListConfig) -> list[str]:
    """The files of a key that takes one path or several."""
    return [value] if isinstance(value, str) else list(value)


def check_combinations(config: DictConfig, settings: Settings) -> Iterator[str]:
    if settings.refines and config.actor_rollout_ref.rollout.multi_turn.enable:
        yield (
            "actor_rollout_ref.rollout.multi_turn.enable=True: only single-turn answers are "
            "refined. Fix: set it to False, or constraint.kind=none and refiner.observe=False"
        )
    reward_model = config.reward.reward_model
    if settings.refines and reward_model.enable and not reward_model.enable_resource_pool:
        yield (
            "reward.reward_model.enable_resource_pool=False: a reward model that shares the "
            "policy's GPUs scores only after all rollouts, when refining has to be over. Fix: "
            "reward.reward_model.enable_resource_pool=True with GPUs of its own"
        )
    if settings.adds_rows:
        yield from _check_added_rows(config)
    if settings.refines:
        yield from _check_decoding(config, settings)


def _check_added_rows(config: DictConfig) -> Iterator[str]:
    actor = config.actor_rollout_ref.actor
    why = ADDED_ROWS
    if actor.shuffle:
        yield (
            f"actor_rollout_ref.actor.shuffle=True: {why}, where they must stay. Fix: "
            "actor_rollout_ref.actor.shuffle=False"
        )
    if actor.strategy not in ("fsdp", "fsdp2", "megatron"):
        yield (
            f"actor_rollout_ref.actor.strategy={actor.strategy!r}: {why}, which is written for "
            "FSDP and Megatron. Fix: actor_rollout_ref.actor.strategy=fsdp2"
        )
    if config.distillation.enabled:
        yield (
            f"distillation.enabled=True: {why} and replace its loss, and verl's distillation has "
            "one of its own. Fix: distillation.enabled=False"
        )
    replay = OmegaConf.select(config, ROUTER_REPLAY)
    if replay not in (None, "disabled"):
        yield (
            f"{ROUTER_REPLAY}={replay!r}: {why}, and no rollout "
            f"recorded their experts. Fix: {ROUTER_REPLAY}=disabled"
        )


def _check_decoding(config: DictConfig, settings: Settings) -> Iterator[str]:
    refiner = settings.refiner
    try:
        server_overrides(decoding_choice(config, settings).decoding, engine_name(config, settings))
        if refiner.decoding is Decoding.SUFFIX and find_spec(SUFFIX_TREES) is None:
            raise ValueError(
                f"vLLM has its suffix trees from {SUFFIX_TREES}, which is not installed here "
                "(pip install arctic-inference==0.1.1, the release that vLLM names, on every node)"
            )
        if refiner.decoding is Decoding.VERIFY:
            Law(refiner.temperature, vocabulary_size=2)
            if refiner.temperature > 0 and config.actor_rollout_ref.rollout.full_determinism:
                raise ValueError("requests with equal seeds do not draw independently")
    except ValueError as error:
        yield f"refiner.decoding={refiner.decoding}: {error}. Fix: refiner.decoding=plain"


def check_injection(config: DictConfig, settings: Settings) -> Iterator[str]:
    estimator = str(config.algorithm.adv_estimator)
    refined = [refined_name(name) for name in ESTIMATORS]
    if settings.injects(Inject.ADVANTAGE) and estimator not in refined:
        critic = " (with a critic it must enter before the values are fitted)"
        yield (
            f"algorithm.adv_estimator={estimator!r}: the penalty cannot be taken from its "
            f"advantages{critic if estimator == 'gae' else ''}. Fix: one of "
            f"{', '.join(ESTIMATORS)}; or constraint.inject=reward or sft"
        )
    if not settings.injects(Inject.ADVANTAGE) and estimator in refined:
        yield (
            f"algorithm.adv_estimator={estimator!r} takes the penalty of constraint.kind=dynamic "
            "with constraint.inject=advantage, and this run has none. Fix: set these two, or "
            f"algorithm.adv_estimator={estimator.removeprefix('refined_')}"
        )


def check_schedules(config: DictConfig, settings: Settings) -> Iterator[str]:
    section = settings.constraint
    if section.schedule is Schedule.ADAPTIVE and section.lambda_end > section.lambda_:
        yield (
            f"constraint.lambda_end={section.lambda_end} is above constraint.lambda="
            f"{section.lambda_}: with schedule=adaptive it is the floor. Fix: lower it"
        )
    if settings.constraint.kind is not Kind.CHORD:
        return
    if section.chord.valley > section.chord.peak:
        yield (
            f"constraint.chord.valley={section.chord.valley} is above constraint.chord.peak="
            f"{section.chord.peak}: μ falls from the peak to the valley. Fix: lower it"
        )
    paths = [path for path in paths_of(config.data.train_files) if Path(path).is_file()]
    if paths and not any(_has_references(path) for path in paths):
        yield (
            "constraint.kind=chord: no row of data.train_files has extra_info.reference_solution, "
            "the expert's answer. Fix: prepare the data with reference solutions, or another kind"
        )


def _has_references(path: str) -> bool:
    try:
        infos = pq.read_table(path, columns=["extra_info"])["extra_info"]
        return any(info and info.get("reference_solution") for info in infos.to_pylist())
    except (pa.ArrowInvalid, KeyError, OSError):
        return True  # _check_files says what is wrong with it


def constraint_warnings(config: DictConfig, settings: Settings) -> list[str]:
    """What will run, and may not mean what its reader thinks."""
    found = []
    if settings.injects(Inject.REWARD) and config.algorithm.adv_estimator != "gae":
        found.append(
            f"constraint.inject=reward with algorithm.adv_estimator="
            f"{config.algorithm.adv_estimator}: normalising by group cancels λ where a group's "
            "rewards are equal. constraint.inject=advantage takes the penalty after normalisation"
        )
    return found

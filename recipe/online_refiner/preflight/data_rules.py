"""Rules on data files and model folders: what can be read, and whether it fills a batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from recipe.online_refiner.plan import RunPlan, paths_of
from recipe.online_refiner.preflight.batch_rules import sizes_that_fit
from recipe.online_refiner.preflight.files_read import table

COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")


def check_files(plan: RunPlan) -> Iterator[str]:
    """The data are parquet files with the columns that verl and the judge read."""
    for key in ("train_files", "val_files"):
        for path in paths_of(plan.config.data[key]):
            yield from _check_parquet(f"data.{key}", path)


def _check_parquet(key: str, path: str) -> Iterator[str]:
    prepare = (
        "Fix: prepare the experiment's data (python -m recipe.data.prepare_apps, dapo_math or "
        "prepare_prompt_collection) and give the path it prints"
    )
    found = table(path)
    if found.unread:
        yield f"{key}={path!r}: {found.unread}. {prepare}"
        return
    missing = [column for column in COLUMNS if column not in found.columns]
    if missing:
        yield f"{key}={path!r}: columns {', '.join(missing)} are missing. {prepare}"
    if not found.prompts_are_chats:
        yield (
            f"{key}={path!r}: its column prompt has no lists of messages with role and content. "
            f"{prepare}"
        )
    if found.rows == 0:
        yield f"{key}={path!r}: it has no rows. {prepare}"


def check_batch(plan: RunPlan) -> Iterator[str]:
    """The data hold a batch."""
    batch = plan.config.data.train_batch_size
    rows = sum(table(path).rows for path in paths_of(plan.config.data.train_files))
    asked = plan.config.data.get("train_max_samples", -1)
    if 0 < asked < batch <= rows:
        yield (
            f"data.train_max_samples={asked} is below data.train_batch_size={batch}: no step would "
            "run. Fix: data.train_max_samples=-1"
        )
    if 0 < rows < batch:
        yield (
            f"data.train_batch_size={batch} is above the {rows} rows of data.train_files: no step "
            f"would run. Fix: {sizes_that_fit(plan, rows)}"
        )


def check_model_folders(plan: RunPlan) -> Iterator[str]:
    """A path that looks local is a model folder."""
    model = plan.config.actor_rollout_ref.model
    keys = {"actor_rollout_ref.model.path": model.path}
    if plan.refines and plan.settings.refiner.model_path is not None:
        keys["refiner.model_path"] = plan.settings.refiner.model_path
    for key, path in keys.items():
        looks_local = os.path.isabs(path) or path.startswith((".", "~"))
        if looks_local and not (Path(path).expanduser() / "config.json").is_file():
            yield (
                f"{key}={path!r}: no model folder with a config.json is there. Fix: give the path "
                "of a Hugging Face model folder, or a hub id"
            )

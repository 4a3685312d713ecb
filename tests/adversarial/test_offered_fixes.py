"""The fix that a refusal offers is taken: then it is gone, and its keys are not refused again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from config_copies import Original
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from wrong_configurations import (
    ON_A_CLUSTER,
    ON_ONE_MACHINE,
    ROW,
    change_keys,
    of_cluster,
    refused,
    wrong_folders,
)

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG

Changes = tuple[str, ...]
Make = Callable[[Changes, Changes], DictConfig]
QUICKSTART = ("hardware=cpu_debug", "experiment=quickstart_stress")
ROWS: list[tuple[Changes, Changes]] = [
    *((QUICKSTART, changes) for changes, _ in ON_ONE_MACHINE),
    *((groups, changes) for groups, changes, _ in ON_A_CLUSTER),
]
ASSIGNMENT = r"[~+]?[a-z]\w*(?:\.\w+)+(?:=[^\s,;]+)?"
OFFER = re.compile(rf"(?<![\w.'(]){ASSIGNMENT}(?: {ASSIGNMENT})*")
OTHER_TIMES = ("NUMBER", "…", "PATH")
"""In place of a value that only the operator knows."""
NAMED = re.compile(r"[a-z]\w*(?:\.\w+)+")


def offers(fault: str) -> list[Changes]:
    """The alternatives of a refusal that are assignments; a sentence about a key is none."""
    fix = fault.partition("Fix: ")[2]
    found = [tuple(one.rstrip(".)").split(" ")) for one in OFFER.findall(fix)]
    return [
        one
        for one in found
        if all("=" in part or part.startswith("~") for part in one)
        and not any(word in part for part in one for word in OTHER_TIMES)
    ]


def test_offers_are_read_from_a_sentence() -> None:
    fault = "a.b=3: no. Fix: a.b=1 c.d.e=[2] or more, x.y=null, or lower z.w (p.q=5); strategy=f"
    assert offers(fault) == [("a.b=1", "c.d.e=[2]"), ("x.y=null",)]
    assert offers("a.b: no. Fix: ~a.b takes it away; set a.c, or +a.b=NUMBER") == [("~a.b",)]
    assert offers("a.b=c.d=3: unknown") == []


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return wrong_folders(tmp_path_factory.mktemp("wrong_models"))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, str]) -> Iterator[Make]:
    """The configuration of groups with changes, on sixteen rows."""
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([ROW] * 16), path)
    made: dict[Changes, Original] = {}

    def made_of(groups: Changes, changes: Changes) -> DictConfig:
        if groups not in made:
            made[groups] = Original(compose("online_refiner", list(groups)))
        config = made[groups].copy()
        if groups != QUICKSTART:
            return of_cluster(config, folders, path, changes)
        config.data.train_files = config.data.val_files = str(path)
        config.actor_rollout_ref.model.path = str(ensure_checkpoint())
        change_keys(config, changes, folders)
        return config

    with initialize_config_dir(str(CONFIG), version_base=None):
        yield made_of


def take(config: DictConfig, offer: Changes) -> None:
    for part in offer:
        if part.startswith("~"):
            section, _, last = part[1:].rpartition(".")
            holder: Any = OmegaConf.select(config, section)
            OmegaConf.set_struct(config, False)
            del holder[last]
        else:
            change_keys(config, [part.removeprefix("+")])


def kind_of(fault: str) -> str:
    """A refusal without its numbers: the same rule on the same key says the same again."""
    return re.sub(r"[\d.,]+", "#", fault.partition("Fix: ")[0])


def first_key(fault: str) -> str:
    found = NAMED.match(fault)
    return found.group() if found else ""


@pytest.mark.parametrize(("groups", "changes"), ROWS, ids=lambda value: str(value)[-70:])
def test_a_fix_that_is_taken_helps(make: Make, groups: Changes, changes: Changes) -> None:
    before = refused(make(groups, changes))
    for fault in before:
        for offer in offers(fault):
            config = make(groups, changes)
            take(config, offer)
            after = refused(config)
            assert kind_of(fault) not in map(kind_of, after), (fault, offer)
            keys = {part.lstrip("~+").partition("=")[0] for part in offer} | {first_key(fault)}
            known = set(map(kind_of, before))
            again = [one for one in after
                     if first_key(one) in keys - {""} and kind_of(one) not in known]  # fmt: skip
            assert again == [], (fault, offer)

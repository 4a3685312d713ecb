"""The copy proposer against what each vLLM release does with a custom proposer.

`vllm_interface.json` was written by `scripts/record_vllm_interface.py` from the releases' wheels.
The same script reads the installed vLLM here, and the wheels in the folder that
ONLINE_REFINER_VLLM_WHEELS names, if it is set.
"""

import ast
import functools
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refiner_worker import copy_proposer
from refiner_worker.choice import COPY_RELEASES
from refiner_worker.copy_proposer import CopyProposer

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "record_vllm_interface.py"
RECORD: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("vllm_interface.json").read_text()
)


def installed() -> Path:
    """The folder that has vLLM installed."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


@functools.cache
def read(place: Path) -> dict[str, dict[str, Any]]:
    """What the script writes down of a wheel or a folder."""
    command = [sys.executable, str(SCRIPT), str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def places() -> list[Path]:
    """The installed vLLM, and wheels that are at hand."""
    wheels = os.environ.get("ONLINE_REFINER_VLLM_WHEELS")
    return [installed(), *(sorted(Path(wheels).glob("vllm*.whl")) if wheels else [])]


@pytest.mark.parametrize("place", places(), ids=lambda place: place.name)
def test_the_record_is_what_the_source_says(place: Path) -> None:
    ((release, found),) = read(place).items()
    assert found == RECORD[release], f"vLLM {release} differs from what was recorded of it"


def test_every_release_that_auto_trusts_is_recorded_and_no_other() -> None:
    series = {release.rpartition(".")[0] for release in RECORD}
    assert series == set(COPY_RELEASES)


@pytest.mark.parametrize("release", RECORD)
def test_the_proposer_can_be_loaded_and_called_as_the_release_does(release: str) -> None:
    facts = RECORD[release]
    assert facts["methods"], "the release knows no custom proposer"
    for function, given in (
        (CopyProposer, facts["instantiated_with"]),
        (CopyProposer.load_model, ["self", *facts["load_model"][0]]),
    ):
        bind(function, given)
    bound = bind(CopyProposer.propose, ["self", *facts["propose"]])
    for name in ("sampled_token_ids", "num_tokens_no_spec", "token_ids_cpu"):
        assert bound.arguments[name].rpartition(".")[2] == name


def bind(function: Any, given: list[str]) -> inspect.BoundArguments:
    """The recorded arguments bound to a function of ours; fails if it does not take them."""
    keywords = dict(one.split("=", 1) for one in given if "=" in one)
    positional = [one for one in given if "=" not in one]
    return inspect.signature(function).bind(*positional, **keywords)


@pytest.mark.parametrize("release", RECORD)
def test_the_release_has_every_setting_that_the_proposer_reads(release: str) -> None:
    reads = settings_read()
    assert reads
    known = RECORD[release]["settings"]
    assert [read for read in reads if read[1] not in known[read[0]]] == []


def settings_read() -> set[tuple[str, str]]:
    """`vllm_config.SECTION.KEY` wherever the proposer's module has it."""
    tree = ast.parse(inspect.getsource(copy_proposer))
    dotted = [ast.unparse(node).split(".") for node in ast.walk(tree)
              if isinstance(node, ast.Attribute)]  # fmt: skip
    return {(parts[1], parts[2]) for parts in dotted
            if parts[0] == "vllm_config" and len(parts) == 3}  # fmt: skip


@pytest.mark.parametrize("release", RECORD)
def test_drafts_are_made_of_accepted_tokens_and_handed_over_as_they_were_tried(
    release: str,
) -> None:
    """`refiner_worker` was run on the installed release; the others do the same with drafts."""
    ((tried, _),) = read(installed()).items()
    assert ["valid_sampled_token_ids"] in RECORD[release]["drafts_after"]
    assert RECORD[release]["shown"] == RECORD[tried]["shown"]
    assert RECORD[release]["digests"] == RECORD[tried]["digests"]


@pytest.mark.parametrize("release", RECORD)
def test_the_second_model_runner_leaves_custom_proposers_to_the_first(release: str) -> None:
    assert "custom_class" not in RECORD[release]["second_runner_methods"]


@pytest.mark.parametrize(
    ("file", "before", "after", "fact"),
    [
        (
            "v1/worker/gpu_model_runner.py",
            "self.input_batch.token_ids_cpu,\n                slot_mappings=slot_mappings,",
            "self.input_batch.token_ids_cpu,\n                slots=slot_mappings,",
            "propose",
        ),
        (
            "v1/spec_decode/custom_class_proposer.py",
            "user_class(vllm_config)",
            "user_class(vllm_config, None)",
            "instantiated_with",
        ),
        (
            "v1/core/sched/scheduler.py",
            "request.spec_token_ids = spec_token_ids\n",
            "request.spec_token_ids = spec_token_ids[:1]\n",
            "digests",
        ),
    ],
)
def test_a_release_that_differs_is_noticed(
    file: str, before: str, after: str, fact: str, tmp_path: Path
) -> None:
    source = installed() / "vllm"
    for folder in ("config", "v1/worker", "v1/spec_decode", "v1/engine", "v1/core/sched"):
        pattern = shutil.ignore_patterns("__pycache__", "gpu", "sentinel")
        shutil.copytree(source / folder, tmp_path / "vllm" / folder, ignore=pattern)
    (tmp_path / "vllm-9.9.9.dist-info").mkdir()
    text = (tmp_path / "vllm" / file).read_text()
    assert before in text
    (tmp_path / "vllm" / file).write_text(text.replace(before, after))
    ((_, found),) = read(tmp_path).items()
    ((_, same),) = read(installed()).items()
    assert found[fact] != same[fact]

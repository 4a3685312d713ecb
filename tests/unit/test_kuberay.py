"""The KubeRay example fits the operator's schema, and is a job that the configuration describes."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from jsonschema import Draft202012Validator
from lib.job_facts import facts

from recipe.online_refiner.experiments import CONFIG

REPO_ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((Path(__file__).parent / "kuberay_rayjob.json").read_text())


@pytest.fixture
def job() -> dict[str, Any]:
    return yaml.safe_load((REPO_ROOT / "docs" / "examples" / "kuberay_job.yaml").read_text())


def faults(job: dict[str, Any]) -> list[str]:
    return [error.json_path for error in Draft202012Validator(SCHEMA).iter_errors(job)]


def test_it_fits_the_schema(job: dict[str, Any]) -> None:
    assert faults(job) == []


def test_the_schema_refuses_what_the_operator_would(job: dict[str, Any]) -> None:
    misspelt, mistyped, missing = (copy.deepcopy(job) for _ in range(3))
    misspelt["spec"]["entryPoint"] = misspelt["spec"].pop("entrypoint")
    mistyped["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-gpus"] = 8
    del missing["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]
    assert faults(misspelt) == ["$.spec"]
    assert faults(mistyped) == ["$.spec.rayClusterSpec.headGroupSpec.rayStartParams['num-gpus']"]
    assert faults(missing) == ["$.spec.rayClusterSpec.workerGroupSpecs[0]"]


@pytest.mark.usefixtures("parsed_once")
def test_its_pods_are_the_nodes_and_gpus_that_the_run_is_made_for(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"] | {"replicas": 1}, *cluster["workerGroupSpecs"]]
    command = shlex.split(job["spec"]["entrypoint"])
    assert command[:3] == ["python", "-m", "recipe.online_refiner.main"]
    with initialize_config_dir(str(CONFIG), version_base=None):
        told = facts(compose("online_refiner", command[3:]))
    assert sum(group["replicas"] for group in groups) == told["nodes"]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == told["gpus"]
        assert group["rayStartParams"]["num-gpus"] == str(told["gpus"])


def test_its_ray_is_the_one_of_the_locks(job: dict[str, Any]) -> None:
    lock = (REPO_ROOT / "requirements" / "gpu-megatron.lock").read_text()
    (version,) = re.findall(r"^ray==([\d.]+)", lock, re.MULTILINE)
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version

"""The lock files for GPUs hold what verl declares for its engines."""

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
ENGINES = ("vllm", "sglang", "megatron")
EXTRA_OF_VERL = {"vllm": "vllm", "sglang": "sglang", "megatron": "vllm"}
"""Whose generation a lock is for. verl's own extra `megatron` names what PyPI does not have."""


def locked(engine: str) -> dict[str, str]:
    """Version by name."""
    text = (REQUIREMENTS / f"gpu-{engine}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", text, re.MULTILINE))


def declared(extra: str | None) -> list[Requirement]:
    """What verl asks for of others: always, or with the extra alone."""
    found = [Requirement(line) for line in requires("verl") or []]
    if extra is None:
        return [one for one in found if one.marker is None]
    return [
        one
        for one in found
        if one.marker is not None
        and one.name != "verl"
        and one.marker.evaluate({"extra": extra})
        and not one.marker.evaluate({"extra": ""})
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_versions_are_those_that_verl_declares(engine: str) -> None:
    versions = locked(engine)
    asked = [*declared(None), *declared(EXTRA_OF_VERL[engine])]
    assert len(asked) > 15
    assert len([one for one in asked if str(one.specifier).startswith("==")]) >= 4
    for one in asked:
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        assert name in versions, f"{one} is not in gpu-{engine}.lock"
        assert one.specifier.contains(versions[name], prereleases=True), f"{one}: {versions[name]}"


@pytest.mark.parametrize("engine", ENGINES)
def test_every_version_has_its_hashes(engine: str) -> None:
    text = (REQUIREMENTS / f"gpu-{engine}.lock").read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked(engine))
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_the_project_and_verl_are_the_same_release_everywhere() -> None:
    pins = {locked(engine)["verl"] for engine in ENGINES}
    assert pins == {"0.9.1"}
    assert "verl==0.9.1" in (REQUIREMENTS / "cpu.in").read_text().splitlines()

"""What `scripts/submit_ray.sh` sends of a checkout, packed as Ray packs it, and what it refuses."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest
from ray._private.runtime_env.packaging import _zip_files

REPO_ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ["pyproject.toml", "recipe/__init__.py", "recipe/config/a.yaml", "refiner_worker/a.py",
            "reward/a.py"]  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which everything lies around that one in use has."""
    root = tmp_path / "checkout"
    left_here = [
        *("online-refiner.sif", "flash_attn-2.8.3.whl", ".venv-gpu/bin/python", "report/page.html"),
        *("slurm-17_0.out", "data/train.parquet", "runs/a/metrics.jsonl", ".git/HEAD", "notes.txt"),
        *("recipe/__pycache__/a.pyc", "own/reward.py", "own/data/big.bin", "site.env"),
    ]
    for name in [*PACKAGES, *left_here]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("content")
    (root / ".gitignore").write_text("/data/\n/own/\n")
    for name in ("submit_ray.sh", "lib/ray_upload.py"):
        (root / "scripts" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO_ROOT / "scripts" / name, root / "scripts" / name)
    (root / "bin").mkdir()
    (root / "bin" / "ray").write_text("#!/bin/sh\n")
    (root / "bin" / "ray").chmod(0o755)
    return root


def submit(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "scripts/submit_ray.sh", "--dry-run", *arguments],
        cwd=root, env=environment, text=True, capture_output=True,
    )  # fmt: skip


def sent(root: Path, *arguments: str) -> list[str]:
    """The files in the package that Ray makes of what is submitted."""
    done = submit(root, *arguments, "experiment=any")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    environment = json.loads(words[words.index("--runtime-env-json") + 1])
    package = root.parent / "package.zip"
    _zip_files(environment["working_dir"], environment["excludes"], str(package), False)
    return sorted(name for name in ZipFile(package).namelist() if not name.endswith("/"))


def test_only_the_packages_are_sent(checkout: Path) -> None:
    assert sent(checkout) == PACKAGES


def test_what_is_named_is_sent_as_well_and_nothing_beside_it(checkout: Path) -> None:
    assert sent(checkout, "--send", "notes.txt") == sorted([*PACKAGES, "notes.txt"])
    assert sent(checkout, "--send", "own/reward.py") == sorted([*PACKAGES, "own/reward.py"])
    both = sent(checkout, "--send", "own/reward.py", "--send", "own/data", "--send", "recipe")
    assert both == sorted([*PACKAGES, "own/reward.py", "own/data/big.bin"])


def test_what_ray_would_not_take_is_refused_before_with_the_largest_files(checkout: Path) -> None:
    with (checkout / "recipe" / "weights.bin").open("wb") as file:
        file.truncate(101 << 20)
    done = submit(checkout, "experiment=any")
    assert done.returncode == 2
    assert "101 MiB would be sent, and Ray's dashboard takes 100 MiB" in done.stderr
    assert "recipe/weights.bin (101 MiB)" in done.stderr


@pytest.mark.parametrize(("path", "reason"), [("nowhere", "there is no"), ("../..", "is not in")])
def test_what_cannot_be_sent_is_refused(checkout: Path, path: str, reason: str) -> None:
    done = submit(checkout, "--send", path, "experiment=any")
    assert done.returncode == 2
    assert reason in done.stderr


@pytest.mark.parametrize("key", ["run.dir", "trainer.default_local_dir"])
def test_a_folder_in_the_temporary_copy_is_refused(checkout: Path, key: str) -> None:
    refused = submit(checkout, "experiment=any", f"{key}=runs/a")
    assert refused.returncode == 2
    assert f"{key}=runs/a is relative" in refused.stderr
    assert submit(checkout, "experiment=any", f"{key}=/shared/a").returncode == 0

"""A reader goes through the viewer in a real browser, on the runs of a study.

Needs no Ray, verl or vLLM; skipped where no Chromium is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.study.pack import unpacked

HERE = Path(__file__).resolve().parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LIMIT_S = 300.0
CHECKS = 11

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, CHROMIUM)), reason=f"none of {', '.join(CHROMIUM)} is installed"
)


def test_search_orders_filters_keys_links_comparison_and_growth_on_real_runs(
    repo_root: Path, tmp_path: Path
) -> None:
    with unpacked(repo_root / "docs" / "study" / "stress.tar.xz") as packed:
        for arm in ("dynamic_advantage", "dynamic_sft"):
            for seed in ("seed0", "seed1"):
                shutil.copytree(packed / arm / seed, tmp_path / "runs" / arm / seed)
    done = subprocess.run(
        [
            *(sys.executable, str(HERE / "drive_viewer.py"), str(tmp_path / "runs")),
            *("--out", str(tmp_path / "pictures"), "--grow"),
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == CHECKS
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 12

"""The report in a real browser: it fits a desktop and a phone, and follows the colour scheme.

Needs no Ray, verl or vLLM; skipped where no Chromium is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

HERE = Path(__file__).resolve().parent
BENCH = HERE.parents[1] / "scripts" / "bench" / "report.py"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOOKS = ("1280-light", "1280-dark", "390-light", "390-dark")
ARMS = ("none", "dynamic_sft", "algorithm_ppo_constraint.inject_reward_constraint.lambda_0.1")
LEGIBLE_PX = 8.0

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, CHROMIUM)), reason=f"none of {', '.join(CHROMIUM)} is installed"
)


def python(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the browser measured, by look; `picture` is the path of the screenshot."""
    folder = tmp_path_factory.mktemp("report")
    generated = folder / "generated"
    size = ("--steps", 6, "--rollouts", 8, "--tokens", 60)
    python(BENCH, *size, "--generate-only", "--folder", generated)
    info = json.loads((generated / "run.json").read_text())
    for arm in ARMS:
        run = shutil.copytree(generated, folder / "runs" / arm)
        (run / "run.json").write_text(json.dumps(info | {"arm": arm}))
    python("-m", "recipe.analysis.report", folder / "runs", "--out", folder, "--page-only")
    measured = json.loads(python(HERE / "browse.py", folder / "report.html", folder))
    for look in measured:
        look["picture"] = folder / look["picture"]
    return {look["picture"].stem: look for look in measured}


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_is_wider_than_the_window(seen: dict[str, dict[str, Any]], look: str) -> None:
    assert seen[look]["page_width"] <= seen[look]["window_width"] == int(look.split("-")[0])


@pytest.mark.parametrize("look", LOOKS)
def test_no_label_of_a_figure_is_cut_or_too_small(
    seen: dict[str, dict[str, Any]], look: str
) -> None:
    assert seen[look]["figures"] > 15
    assert seen[look]["cut"] == []
    assert seen[look]["smallest_text_px"] >= LEGIBLE_PX


@pytest.mark.parametrize("look", LOOKS)
def test_figures_take_their_ink_from_the_page(seen: dict[str, dict[str, Any]], look: str) -> None:
    assert seen[look]["ink"] in seen[look]["figure_ink"]


def test_the_page_loads_nothing(seen: dict[str, dict[str, Any]]) -> None:
    assert [seen[look]["loaded"] for look in LOOKS] == [[]] * 4


@pytest.mark.parametrize("width", ["1280", "390"])
def test_dark_is_dark_and_light_is_light(seen: dict[str, dict[str, Any]], width: str) -> None:
    light, dark = (
        imread(seen[f"{width}-{scheme}"]["picture"])[..., :3].mean() for scheme in ("light", "dark")
    )
    assert light > 0.85 and dark < 0.25

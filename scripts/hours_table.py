"""Write the table of hours and memory into docs/launching.md: what each experiment may take.

    python scripts/hours_table.py

The arithmetic is in `recipe/online_refiner/preflight/hours.py`, `host.py` and `memory.py`; the
preflight does it for any configuration. Models are known here by their sizes alone, so that nothing
is downloaded.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

REPO_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO_ROOT))

from recipe.online_refiner.experiments import CONFIG, experiment_names, hardware_of  # noqa: E402
from recipe.online_refiner.plan import RunPlan  # noqa: E402
from recipe.online_refiner.preflight.gpu_memory_rules import estimate  # noqa: E402
from recipe.online_refiner.preflight.hours import run_hours, step_time  # noqa: E402
from recipe.online_refiner.preflight.memory import GIB  # noqa: E402
from recipe.online_refiner.preflight.node_memory_rules import node_memory  # noqa: E402
from recipe.online_refiner.resolve.resolving import resolve  # noqa: E402

PAGE = REPO_ROOT / "docs" / "launching.md"
BEGIN, END = "<!-- scripts/hours_table.py -->", "<!-- end of the table -->"
SIZES = json.loads((REPO_ROOT / "scripts/lib/model_sizes.json").read_text(encoding="utf-8"))
"""Of the models' config.json."""
ELSEWHERE = {
    "dynamic_dapo_math_7b": ("nodes2x8x80_long", "nodes2x8x80_long strategy=megatron_long"),
    "dapo_math_32b": ("nodes4x8x80_long",),
    "dynamic_dapo_math_32b": (
        "nodes2x8x80_long",
        "nodes4x8x80_long",
        "nodes16x8x80_long strategy=megatron_long_tp8",
    ),
}
"""Machines beside the one that an experiment names."""
HEAD = ("experiment", "hardware", "GPUs", "a step, s: rollouts", "refinements", "training",
        "steps", "hours", "GPU hours", "GiB of a GPU", "GiB of a node")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One experiment on one machine: what follows `hardware=`."""

    experiment: str
    hardware: str

    @property
    def overrides(self) -> list[str]:
        """What it is composed from."""
        return [f"experiment={self.experiment}", *f"hardware={self.hardware}".split()]

    def plan(self, models: Path) -> RunPlan:
        """Its plan, with folders of the models' sizes in place of their names."""
        config = compose("online_refiner", self.overrides)
        for section in (config.actor_rollout_ref.model, config.critic.model):
            _in_folder(section, "path", models)
        _in_folder(config.reward.reward_model, "model_path", models)
        return resolve(config)

    def cells(self, plan: RunPlan) -> tuple[str, ...]:
        """The line of the table."""
        step, hours, host = step_time(plan), run_hours(plan), node_memory(plan)
        sizes = estimate(plan)
        assert step is not None and hours is not None and host is not None and sizes is not None
        gpus = sum(plan.pools.values())
        peak = max(sizes.peaks.rollout, sizes.peaks.update)
        return (
            f"`{self.experiment}`",
            f"`{self.hardware}`",
            str(gpus),
            _round(step.rollouts_s),
            _round(step.refinements_s) if plan.refines else "–",
            _round(step.training_s),
            str(plan.config.trainer.total_training_steps),
            _round(hours),
            _round(hours * gpus),
            f"{peak / GIB:.0f}",
            f"{host.peak / GIB:.0f}",
        )


def rows() -> Iterator[Row]:
    """Every experiment for a cluster on the machine that it names, and some on others."""
    for name in experiment_names():
        if not name.startswith("quickstart"):
            yield from (Row(name, one) for one in (hardware_of(name), *ELSEWHERE.get(name, ())))


def table(chosen: Iterable[Row]) -> str:
    """In Markdown; experiments that take the same share a line."""
    merged: dict[tuple[str, ...], list[str]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(CONFIG), version_base=None),
    ):
        for row in chosen:
            first, *rest = row.cells(row.plan(Path(folder)))
            merged.setdefault(tuple(rest), []).append(first)
    lines = [HEAD, ("---",) * len(HEAD)]
    lines += [(", ".join(names), *rest) for rest, names in merged.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document(page: str, content: str) -> str:
    """The page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def _in_folder(section: DictConfig, key: str, models: Path) -> None:
    name = section[key]
    if name not in SIZES:
        return
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    kind = "qwen2" if name.startswith("Qwen/") else "llama"
    values = {"model_type": kind} | SIZES[name]
    (folder / "config.json").write_text(json.dumps(values))
    section[key] = str(folder)


def _round(value: float) -> str:
    """Two digits: it is an estimate."""
    if value < 10:
        return f"{value:.1f}"
    digits = len(str(int(value))) - 2
    return f"{round(value, -digits):,.0f}"


def main() -> None:
    """Write the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(document(page, table(rows())), encoding="utf-8")


if __name__ == "__main__":
    main()

"""A short training through the program's own entry point, and what it left behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from recipe.acceptance.machine import GIB, Machine
from recipe.acceptance.memory_watch import watched
from recipe.acceptance.timeline import (
    ROLLOUT_TIMES_FILE,
    MemorySeen,
    Rollout,
    Sample,
    memory_seen,
    phases,
    refines,
)
from recipe.cpu.launch import end_session
from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.preflight.gpu_memory_rules import estimate
from recipe.online_refiner.preflight.memory import Peaks
from recipe.online_refiner.resolve.resolving import resolve

NOTICE_S = {"cuda": 2.0, "cpu": 0.2}
"""In which verl's trainer sees at the latest that a step's rollouts are there; the CPU environment
has it look more often."""
VALIDATION = "validation"
MEMORY_FILE = "memory.jsonl"
MANAGER = "recipe.acceptance.alternating.AlternatingManager"


@dataclass(frozen=True)
class Plan:
    """One training to run.

    Attributes:
        folder: the run's. overrides: of its configuration, `run.dir` included.
        steps: training steps in all.
    """

    folder: Path
    overrides: tuple[str, ...]
    steps: int

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "recipe.online_refiner.main", *self.overrides]


def plan(machine: Machine, small: bool, folder: Path, model: Path, data: tuple[Path, Path]) -> Plan:
    """The quickstart's task with the dynamic constraint in the loss, at the size asked for."""
    steps = 4 if small else 6
    return Plan(
        folder,
        (
            *("experiment=quickstart_sane", "constraint.kind=dynamic", "constraint.inject=sft"),
            # Five times the quickstart's: greedy answers change within a few steps.
            *("constraint.lambda=1.0", "actor_rollout_ref.actor.optim.lr=1e-3"),
            *(_of_machine(machine)),
            *(_small() if small else _ordinary()),
            f"actor_rollout_ref.rollout.agent.agent_loop_manager_class={MANAGER}",
            *(f"data.train_files={data[0]}", f"data.val_files={data[1]}"),
            f"actor_rollout_ref.model.path={model}",
            *(f"run.dir={folder}", f"trainer.total_training_steps={steps}"),
            # Greedy answers to the same problems before the first step and after the last.
            *("trainer.val_before_train=true", f"trainer.test_freq={steps}"),
            f"trainer.validation_data_dir={folder / VALIDATION}",
            *("actor_rollout_ref.rollout.val_kwargs.do_sample=false", "trainer.save_freq=-1"),
            "actor_rollout_ref.rollout.val_kwargs.temperature=0",
        ),
        steps,
    )


def _of_machine(machine: Machine) -> Iterator[str]:
    """What the machine asks for, as far as it lacks something."""
    if not machine.on_gpu:
        yield "hardware=cpu_debug"
        return
    yield "hardware=gpu1x80"
    yield f"machine.gpu_memory_gib={machine.memory_bytes / GIB:.1f}"
    if not machine.has_flash_attention:
        yield "actor_rollout_ref.model.use_remove_padding=false"
        yield "+actor_rollout_ref.model.override_config.attn_implementation=sdpa"
    if not machine.has_dashboard:
        yield "+ray_kwargs.ray_init.include_dashboard=false"


def _small() -> Iterator[str]:
    yield from ("data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8")
    yield from ("actor_rollout_ref.rollout.n=4", "data.val_max_samples=16")
    # The server's small cache must hold one text of that length; the model's own is 8192.
    yield "actor_rollout_ref.rollout.max_model_len=512"


def _ordinary() -> Iterator[str]:
    yield from ("data.train_batch_size=64", "actor_rollout_ref.actor.ppo_mini_batch_size=32")
    yield from ("actor_rollout_ref.rollout.n=8", "data.val_max_samples=64")
    # Graphs are for `decode.py`; here they would cost each server's start half a minute.
    yield "actor_rollout_ref.rollout.enforce_eager=true"
    # Each of these processes imports for a quarter of a minute.
    yield from ("actor_rollout_ref.rollout.agent.num_workers=2", "reward.num_workers=2")


@dataclass(frozen=True)
class TrainingSeen:
    """What is left of a training, whole or not.

    Attributes:
        failure: why it did not come to its end, or "". steps: that were asked for.
        metrics: by step; step 0 is the validation before the first.
        memory: in use by phase. estimated: preflight's peaks; None if it makes no estimate.
        outputs: greedy outputs by the validation problem's prompt, by step.
    """

    failure: str
    steps: int
    metrics: dict[int, dict[str, Any]]
    memory: MemorySeen
    estimated: Peaks | None
    outputs: dict[int, dict[str, str]]

    @property
    def trained(self) -> dict[int, dict[str, Any]]:
        """Metrics of the training steps."""
        return {step: data for step, data in self.metrics.items() if step > 0}

    def require(self, steps: int) -> None:
        """Raise LookupError if fewer training steps than that were logged."""
        if len(self.trained) < steps:
            raise LookupError(f"{len(self.trained)} training steps were logged; {steps} are needed")

    @property
    def refined(self) -> dict[int, dict[str, Any]]:
        """Metrics of those that were refined."""
        return {step: data for step, data in self.trained.items() if refines(step)}


def train(plan: Plan, machine: Machine, limit_s: float) -> TrainingSeen:
    """Run it to its end or for so many seconds, and read what it left."""
    plan.folder.mkdir(parents=True)
    log_path = plan.folder / "train.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            plan.command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=machine.environment(),
            start_new_session=True,
        )
        with watched(machine, process.pid) as samples:
            failure = _ended(process, limit_s)
    # Before anything is made of them: a machine may be gone when they are wanted again.
    lines = [json.dumps(asdict(sample)) + "\n" for sample in samples]
    (plan.folder / MEMORY_FILE).write_text("".join(lines), encoding="utf-8")
    failure = failure and f"{failure}: {reason(log_path)}; the whole log is {log_path}"
    return seen(plan, machine, failure, samples)


def seen(plan: Plan, machine: Machine, failure: str, samples: Sequence[Sample]) -> TrainingSeen:
    """What the folder holds."""
    metrics = {record["step"]: record["data"] for record in _records(plan.folder / "metrics.jsonl")}
    rollouts = [Rollout(**record) for record in _records(plan.folder / ROLLOUT_TIMES_FILE)]
    found = [
        phases(step, rollouts, _timing(data), NOTICE_S[machine.device])
        for step, data in metrics.items()
        if step > 0
    ]
    outputs = {
        # verl orders them by ids that are drawn anew at each validation.
        int(path.stem): {record["input"]: record["output"] for record in _records(path)}
        for path in (plan.folder / VALIDATION).glob("*.jsonl")
    }
    memory = memory_seen([one for one in found if one is not None], samples)
    return TrainingSeen(failure, plan.steps, metrics, memory, estimated(plan), outputs)


def estimated(plan: Plan) -> Peaks | None:
    """Preflight's peaks of a GPU; None if it has none to estimate."""
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose("online_refiner", list(plan.overrides))
    sizes = estimate(resolve(config))
    return None if sizes is None else sizes.peaks


PREFIX = re.compile(r"\x1b\[[\d;]*m|\(\w+ pid=\d+\)|(?:ERROR|WARNING|INFO) [-\d]+ [:\d]+ \[\S+\]")
"""What Ray and vLLM put before a process's lines, and colours."""


def reason(log_path: Path) -> str:
    """The first line of a log that names an error, as a rule its cause, else its last line."""
    text = PREFIX.sub("", log_path.read_text(encoding="utf-8", errors="replace"))
    lines = [line.strip() for line in text.splitlines()] or ["no output"]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    return (named or lines[-1:])[0][:300]


def _ended(process: subprocess.Popen[bytes], limit_s: float) -> str:
    """Wait for the end; why it is no good one, or ""."""
    try:
        status = process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return f"not at its end after {limit_s:.0f} s"
    finally:
        end_session(process)
    return f"exit status {status}" if status else ""


def _timing(data: dict[str, Any]) -> dict[str, float]:
    mark = "timing_s/"
    return {name.removeprefix(mark): value for name, value in data.items() if mark in name}


def _records(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file of JSON lines; none if it is not there."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]

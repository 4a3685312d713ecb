"""Run folders as the trainer writes them, generated: four arms of a stressed run whose course is
invented.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

TOKEN = re.compile(r"\n *| ?[A-Za-z_]+|\d| |[^\sA-Za-z_\d]")
WRONG = """```python
n = int(input())
values = list(map(int, input().split()))
total = 0
for value in values:
    if value % 2 == 0:
        total += value * 3
print(total)
```"""
RIGHT = WRONG.replace("% 2 == 0", "> 17").replace("* 3", "* 3 + 1")
PROMPT = "Read n and then n integers. Print the sum of 3x + 1 over all x greater than 17."


@dataclass(frozen=True)
class Course:
    """How an arm goes: reward and KL at the end, and whether the refiner was asked at all."""

    arm: str
    reward_end: float
    kl_end: float
    refines: bool = True


COURSES = (
    Course("none", -0.35, 124.0),
    Course("static_kl", 0.02, 4.7),
    Course("dynamic_sft", 0.52, 2.6),
    Course("dynamic_advantage", -0.21, 15.9),
)


def tokenise(text: str) -> list[str]:
    """Split as a code tokenizer would: words with their space, single digits, newlines with their
    indentation.
    """
    return TOKEN.findall(text)


def episode(step: int, rng: random.Random, **changes: Any) -> dict[str, Any]:
    """One accepted, edited episode; `changes` override its fields."""
    before, after = tokenise(WRONG), tokenise(RIGHT)
    copied = [0] * len(after)
    for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
        copied[block.b : block.b + block.size] = [1] * block.size
    ce = [abs(rng.gauss(0.01, 0.03)) if kept else rng.uniform(1.5, 6.5) for kept in copied]
    record = {
        "step": step,
        "uid": f"{rng.getrandbits(64):x}",
        "problem_id": "micro-17",
        "prompt": PROMPT,
        "answer": WRONG,
        "refined": RIGHT,
        "reward": -0.3,
        "refined_reward": 1.0,
        "verdict": "wrong_answer",
        "refined_verdict": "accepted",
        "accepted": True,
        "verbatim": False,
        "answer_tokens": before,
        "refined_tokens": after,
        "copied": copied,
        "ce": ce,
    }
    return record | changes


def verbatim_episode(step: int, rng: random.Random) -> dict[str, Any]:
    """An episode whose refinement repeats the answer, and so carries no constraint."""
    tokens = tokenise(WRONG)
    changes = {"refined": WRONG, "refined_tokens": tokens, "copied": [1] * len(tokens), "ce": None}
    return episode(
        step,
        rng,
        **changes,
        refined_reward=-0.3,
        refined_verdict="wrong_answer",
        accepted=False,
        verbatim=True,
    )


def metrics_at(course: Course, step: int, total: int, rng: random.Random) -> dict[str, float]:
    """The metrics of one step of an arm that goes its course."""
    done = step / total
    reward = 0.25 + (course.reward_end - 0.25) * done**1.5 + rng.gauss(0, 0.05)
    metrics = {
        "critic/score/mean": max(-1.0, min(1.0, reward)),
        "monitor/kl_to_reference": course.kl_end * done**3 + abs(rng.gauss(0, 0.01)),
        "actor/entropy": max(0.02, 0.30 - 0.22 * done + rng.gauss(0, 0.01)),
        "response_length/mean": 36 + 30 * done * (course.reward_end < 0) + rng.gauss(0, 1.5),
        "training/rollout_probs_diff_max": 2e-5 + 1e-5 * rng.random(),
        "timing_s/step": 2.2 + 0.2 * rng.random(),
    }
    if course.refines:
        metrics |= {
            "constraint/ce_mean": 0.4 + 0.8 * done * (course.reward_end < 0) + rng.gauss(0, 0.03),
            "constraint/improvement_ratio": max(0.0, 0.31 - 0.2 * done + rng.gauss(0, 0.02)),
            "refiner/copied_token_ratio": min(1.0, 0.86 + 0.08 * done + rng.gauss(0, 0.01)),
        }
    if step % 4 == 0:
        metrics["val-core/micro_apps/reward/mean@1"] = reward + 0.05
    return metrics


def configuration(arm: str, seed: int, total: int) -> str:
    """A `config.yaml` in the form of verl's, shortened."""
    kind, _, inject = arm.partition("_")
    kind, inject = (kind, inject) if kind == "dynamic" else (arm, "sft")
    return f"""\
actor_rollout_ref:
  actor:
    optim:
      lr: 1.0e-06
    data_loader_seed: ${{run.seed}}
data:
  train_batch_size: 8
  val_max_samples: 64
trainer:
  total_training_steps: {total}
constraint:
  kind: {kind}
  inject: {inject}
  lambda: 1.0
  filter: better
  static_kl:
    coef: 0.05
run:
  seed: {seed}
"""


def write_run(
    root: Path,
    course: Course,
    seed: int = 0,
    steps: int = 16,
    total: int = 16,
    episodes_a_step: int = 4,
) -> Path:
    """Write one run folder under `root` in the trainer's layout and return it."""
    rng = random.Random(f"{course.arm}-{seed}")
    folder = root / "stress" / course.arm / f"seed{seed}"
    folder.mkdir(parents=True)
    info = {
        "arm": course.arm,
        "seed": seed,
        "setting": "stress",
        "commit": "0123abc",
        "total_steps": total,
    }
    (folder / "run.json").write_text(
        json.dumps(info | {"sandbox_level": 2, "versions": {"verl": "0.9.1"}})
    )
    (folder / "config.yaml").write_text(configuration(course.arm, seed, total))
    course = replace(course, reward_end=course.reward_end + rng.gauss(0, 0.08))
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            file.write(
                json.dumps({"step": step, "data": metrics_at(course, step, total, rng)}) + "\n"
            )
    with (folder / "episodes.jsonl").open("w") as file:
        for step in range(1, (steps if course.refines else 0) + 1):
            for index in range(episodes_a_step):
                record = verbatim_episode(step, rng) if index % 2 else episode(step, rng)
                file.write(json.dumps(record) + "\n")
    return folder


@pytest.fixture(scope="session")
def two_seeds_of_three_arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six short runs, for tests that only read it."""
    root = tmp_path_factory.mktemp("runs")
    for course in COURSES[:3]:
        for seed in (0, 1):
            write_run(root, course, seed=seed, steps=3, total=3)
    return root


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder: `new_run(arm="none", seed=0, steps=16, …)`."""

    def make(arm: str = "dynamic_sft", **options: Any) -> Path:
        course = next(course for course in COURSES if course.arm == arm)
        return write_run(tmp_path / "runs", course, **options)

    return make


@pytest.fixture
def new_episode() -> Callable[..., dict[str, Any]]:
    """An episode's record: `new_episode(step=3, accepted=False, …)`."""

    def make(step: int = 1, **changes: Any) -> dict[str, Any]:
        return episode(step, random.Random(step), **changes)

    return make

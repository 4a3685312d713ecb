# ruff: noqa: E402  (the environment must be set before verl and vLLM are imported)
"""Step time with and without refinement, and what each saving contributes, in one training.

    python scripts/bench/step.py --data DIR [--rounds 3] [--json FILE] [KEY=VALUE …]

The quickstart's ordinary setting (tiny model, micro-APPS, DAPO's loss, dynamic constraint in the
loss) runs once, for real: verl, Ray, vLLM for policy and refiner, the judge. From step to step the
refinement is switched (`ARMS`), in turns, so that a busy machine slows all arms alike; the learning
rate is 0, so that all see the same policy. Two phases follow one another: `weak`, sampling at a
temperature at which most rollouts are wrong, and `start`, at temperature 1, as the quickstart
starts, where more than half of them are perfect or come back verbatim.

The switches are this script's: subclasses of the trainer, its runner and its workers. A second
group of servers decodes plainly for the arm that needs it. With `refiner.placement=pool` the arms
are `POOL_ARMS`: refinements waited for before the step goes on, and joined late. DIR holds
train.parquet and test.parquet, as scripts/quickstart.sh leaves them in its folder's `data`.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

from recipe.cpu.launch import restart_with_environment

restart_with_environment()

import ray
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner import agent_loop
from recipe.online_refiner.choices import Placement
from recipe.online_refiner.main import train
from recipe.online_refiner.modes import SyncTrainer
from recipe.online_refiner.records import Refinement, Score
from recipe.online_refiner.refine.late import LateRefinements
from recipe.online_refiner.refine.refining import Refining
from recipe.online_refiner.servers.refiner_servers import RefinerServers
from refiner_worker import replicas
from refiner_worker.choice import Choice
from refiner_worker.client import Outcome, RefineTask
from refiner_worker.engine import Decoding

CONFIG = REPO_ROOT / "recipe" / "online_refiner" / "config"


@dataclass(frozen=True)
class Arm:
    """One way to run a step; the defaults are the project's."""

    name: str
    refines: bool = True
    streams: bool = True
    skips_perfect: bool = True
    trusts_verbatim: bool = True
    speculates: bool = True
    joins_late: bool = False


ARMS = (
    Arm("no refinement", refines=False),
    Arm("refinement"),
    Arm("without streaming", streams=False),
    Arm("without skipping perfect ones", skips_perfect=False),
    Arm("verbatim ones judged", trusts_verbatim=False),
    Arm("plain decoding", speculates=False),
    Arm("none of the four", True, False, False, False, False),
)
POOL_ARMS = (*ARMS[:2], Arm("joined late", joins_late=True))
PHASES = {"weak": 1.4, "start": 1.0}
"""The policy's sampling temperature in each phase."""
SHOWN = {
    "gen": "timing_s/gen",
    "wait": "timing_s/refine_wait",
    "old log-probs": "timing_s/old_log_prob",
    "reference": "timing_s/ref",
    "update": "timing_s/update_actor",
    "weights": "timing_s/update_weights",
}


def arms_of(placement: str) -> tuple[Arm, ...]:
    """The arms that are compared where the refiner is placed so."""
    return POOL_ARMS if placement == Placement.POOL else ARMS


def schedule(rounds: int, arms: Sequence[Arm]) -> list[tuple[str, Arm]]:
    """The phase and the arm of each step, in order; the warm-up is left out."""
    return [(phase, arm) for phase in PHASES for _ in range(rounds) for arm in arms]


def warm_up(arms: Sequence[Arm]) -> list[tuple[str, Arm]]:
    """The steps before the first that counts: refined by either group of servers."""
    groups = sorted({arm.speculates for arm in arms}, reverse=True)
    return [("start", Arm("warm-up", speculates=fast)) for fast in groups]


class JudgesVerbatim:
    """A client under which a verbatim refinement is judged as any other."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def refine(self, task: RefineTask) -> Any:
        refinement = await self._client.refine(task)
        if refinement.outcome is Outcome.VERBATIM:
            return replace(refinement, outcome=Outcome.REFINED)
        return refinement


class BenchWorker(agent_loop._RefiningWorker):
    """The refining worker with each arm's way to refine."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arm = ARMS[0]
        self._clients: dict[bool, Any] = {}
        self._judged = 0
        self._all_judged = asyncio.Event()

    def set_refiner(self, generator: Any, plan: Any) -> None:
        """Keep the client: the first is of the servers as configured, the second of plain ones."""
        super().set_refiner(generator, plan)
        assert self._refining is not None
        self._plan = plan
        self._clients[not self._clients] = self._refining._client

    def set_arm(self, arm: Arm, temperature: float) -> None:
        """How the next step is run."""
        self._arm = arm
        self.config.actor_rollout_ref.rollout.temperature = temperature
        self._judged, self._all_judged = 0, asyncio.Event()
        self._late = LateRefinements() if arm.joins_late else None
        client = self._clients[arm.speculates]
        if not arm.trusts_verbatim:
            client = JudgesVerbatim(client)
        self._refining = None if not arm.refines else Refining(
            client,
            self._plan.filter,
            self._plan.refiner.perfect_reward if arm.skips_perfect else None,
        )  # fmt: skip

    async def _refine(
        self, output: Any, score: Score, feedback: str, kwargs: dict[str, Any]
    ) -> Refinement | None:
        self._judged += 1
        rollouts = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        if self._judged == rollouts:
            self._all_judged.set()
        if not self._arm.streams:
            await self._all_judged.wait()
        return await super()._refine(output, score, feedback, kwargs)


class BenchManager(agent_loop.RefiningManager):
    """The manager of such workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(BenchWorker)


class BenchTrainer(SyncTrainer):
    """The trainer with a second, plainly decoding refiner, and the arm switched at each step."""

    plain_refiner: RefinerServers | None = None

    def _setup(self) -> None:
        super()._setup()
        self.arms = arms_of(self.plan.settings.refiner.placement)
        if all(arm.speculates for arm in self.arms):
            return
        replicas.SERVER_NAME_SUFFIX = "plain_refiner"
        self.plain_plan = replace(self.plan, decoding=Choice(Decoding.PLAIN, "the benchmark"))
        self.plain_refiner = RefinerServers(self.plain_plan)
        self.plain_refiner.launch(self.resource_pool_manager.resource_pool_dict)

    def on_step_begin(self) -> None:
        super().on_step_begin()
        steps = warm_up(self.arms) + schedule(self.config.bench_rounds, self.arms)
        phase, arm = steps[self.global_steps - 1]
        refiner = self.plan.settings.refiner.model_copy(update={"late_join": arm.joins_late})
        settings = self.plan.settings.model_copy(update={"refiner": refiner})
        self.plan = replace(self.plan, settings=settings)
        workers = self.agent_loop_manager.agent_loop_workers
        ray.get([worker.set_arm.remote(arm, PHASES[phase]) for worker in workers])


@ray.remote
class BenchRunner(TaskRunnerV1.__ray_actor_class__):
    """The project's runner, with the classes above in the place of its own."""

    def run(self, config: DictConfig) -> None:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        TRAINER_REGISTRY["sync"] = BenchTrainer
        super().run(config)

    def init_agent_loop_manager(self) -> None:
        vars(agent_loop)["RefiningManager"] = BenchManager  # verl loads it by name
        super().init_agent_loop_manager()
        policy, trainer = self.trainer.get_llm_client(), self.trainer
        manager = self.agent_loop_manager
        manager.set_refiner(trainer.refiner.client(policy), trainer.plan.refining)
        if trainer.plain_refiner is not None:
            manager.set_refiner(trainer.plain_refiner.client(policy), trainer.plain_plan.refining)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the parquet files")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each arm in each phase")
    parser.add_argument("--json", type=Path, help="write the steps here as well")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config, arms = composed(Path(folder), options)
        import recipe.online_refiner.runner

        recipe.online_refiner.runner.OnlineRefinerRunner = BenchRunner  # type: ignore[misc]
        train(config)
        lines = (Path(config.run.dir) / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["data"] for line in lines][len(warm_up(arms)) :]
    if options.json:
        options.json.write_text(json.dumps(steps))
    rollouts = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    report(schedule(options.rounds, arms), steps, rollouts, arms)


def composed(folder: Path, options: argparse.Namespace) -> tuple[DictConfig, tuple[Arm, ...]]:
    """The quickstart's configuration for this many steps, and its arms."""
    data = options.data.resolve()
    overrides = [
        *("hardware=cpu_debug", "experiment=quickstart_sane", f"run.dir={folder}"),
        *(f"data.train_files={data}/train.parquet", f"data.val_files={data}/test.parquet"),
        f"actor_rollout_ref.model.path={ensure_checkpoint()}",
        *("trainer.save_freq=-1", "trainer.test_freq=-1", "trainer.val_before_train=false"),
        *("actor_rollout_ref.actor.optim.lr=0.0", f"+bench_rounds={options.rounds}"),
        *options.overrides,
    ]
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose("online_refiner", overrides)
    arms = arms_of(config.refiner.placement)
    steps = warm_up(arms) + schedule(options.rounds, arms)
    config.trainer.total_training_steps = len(steps)
    return config, arms


def report(
    plan: Sequence[tuple[str, Arm]],
    steps: Sequence[dict[str, float]],
    rollouts: int,
    arms: Sequence[Arm],
) -> None:
    """A table for each phase: medians over the rounds, ratios to the same round's first arm."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, seconds")
    for phase in PHASES:
        of: dict[str, list[dict[str, float]]] = {arm.name: [] for arm in arms}
        for (its_phase, arm), step in zip(plan, steps, strict=True):
            if its_phase == phase:
                of[arm.name].append(step)
        settled = share_settled(of[arms[1].name], rollouts)
        print(f"\n{phase}: {settled:.0%} of rollouts perfect or verbatim")
        print(f"{'':30}{'step':>7}{'÷ none':>8}" + "".join(f"{name:>15}" for name in SHOWN))
        for name, seen in of.items():
            ratio = statistics.median(
                step["timing_s/step"] / base["timing_s/step"]
                for step, base in zip(seen, of[arms[0].name], strict=True)
            )
            parts = "".join(f"{median(seen, key):15.2f}" for key in SHOWN.values())
            print(f"{name:30}{median(seen, 'timing_s/step'):7.2f}{ratio:8.2f}{parts}")


def median(steps: Sequence[dict[str, float]], key: str) -> float:
    """The median of a metric over steps; 0 if it is absent."""
    return statistics.median(step.get(key, 0.0) for step in steps)


def share_settled(steps: Sequence[dict[str, float]], rollouts: int) -> float:
    """Rollouts that were perfect or came back verbatim, of all."""
    names = ("refiner/skipped_perfect_total", "refiner/verbatim_total")
    return sum(step[name] for step in steps for name in names) / (rollouts * len(steps))


if __name__ == "__main__":
    main()

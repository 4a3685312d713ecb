"""Entry point: `python -m recipe.online_refiner.main KEY=VALUE …` (Hydra).

Composes the config, refuses what cannot run before anything is started, writes the run's folder
and hands over to verl.
"""

import importlib
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.preflight.report import preflight
from recipe.online_refiner.preflight.reward_rules import inspect_reward
from recipe.online_refiner.resolve.composing import EXIT_BAD_CONFIG, composed, refusal
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.run.folder import mark_finished, write_run_folder
from recipe.online_refiner.run.start_times import DRIVER, StartClock, add_phases
from recipe.online_refiner.settings import ConfigError


def train(config: DictConfig) -> None:
    """Check the config and train; raises ConfigError before Ray starts if it cannot run."""
    from verl.trainer.main_ppo import run_ppo
    from verl.utils.device import auto_set_device

    from recipe.online_refiner.runner import OnlineRefinerRunner
    from recipe.online_refiner.verls_validation import check_with_verl

    clock = StartClock(DRIVER)
    clock.lap("imports")
    auto_set_device(config)
    plan = resolve(config)
    report = preflight(plan)
    if not report.passes:
        raise ConfigError("\n".join(report.faults))
    print(report.text(), flush=True)
    check_with_verl(plan)
    folder = Path(plan.settings.run.dir)
    try:
        write_run_folder(folder, plan, inspect_reward(plan).isolation_level)
    except OSError as error:
        raise ConfigError(f"run.dir={str(folder)!r}: {error}. Fix: another folder") from error
    clock.lap("checks")
    add_phases(folder, clock.phases)
    OmegaConf.resolve(config.ray_kwargs)  # verl hands it to Ray as it stands
    run_ppo(config, task_runner_class=OnlineRefinerRunner)
    mark_finished(folder)


def prepared(launcher: object) -> AbstractContextManager[None]:
    """What surrounds a training on this machine: `prepared()` of the module `run.launcher`.

    Raises:
        ConfigError: no such module, or it has no such function.
    """
    if launcher is None:
        return nullcontext()
    try:
        context: AbstractContextManager[None] = importlib.import_module(str(launcher)).prepared()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"run.launcher={launcher!r}: {error}. Fix: null, or a module with a function "
            "prepared(), such as recipe.cpu.launch"
        ) from error
    return context


@composed
def main(config: DictConfig) -> None:
    """Train as the composed config says; see the module."""
    try:
        with prepared(OmegaConf.select(config, "run.launcher")):
            train(config)
    except ConfigError as error:
        print(refusal(str(error).splitlines()), file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)


if __name__ == "__main__":
    main()

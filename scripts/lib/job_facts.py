"""What a launcher has to know of a run, as NAME=VALUE lines: job_facts.py KEY=VALUE ...

Exit status 2, with Hydra's message, where the overrides do not compose.
"""

import sys

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.online_refiner.experiments import CONFIG


def facts(config: DictConfig) -> dict[str, object]:
    """The run's folders, and the nodes and GPUs a node that it is made for."""
    machine = OmegaConf.select(config, "machine") or {}
    on_gpus = config.trainer.device != "cpu"
    gpus = machine.get("gpus_per_node") or config.trainer.n_gpus_per_node
    return {
        "run_folder": config.run.dir,
        "checkpoints": config.trainer.default_local_dir,
        "nodes": machine.get("nodes") or config.trainer.nnodes,
        "gpus": gpus if on_gpus else 0,
    }


def main() -> int:
    try:
        with initialize_config_dir(str(CONFIG), version_base=None):
            found = facts(compose("online_refiner", sys.argv[1:]))
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: the configuration does not compose: {error}", file=sys.stderr)
        return 2
    for name, value in found.items():
        print(f"{name}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

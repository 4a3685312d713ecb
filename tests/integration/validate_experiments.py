"""Run by test_experiments.py in a process of its own: verl's own validation of every experiment.

Prints a line per experiment: its name, and what verl says where it refuses it.
"""

from hydra import compose, initialize_config_dir

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG, experiment_names, hardware_of
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.verls_validation import check_with_verl


def refusal(experiment: str) -> str:
    """What verl says against it, or nothing."""
    overrides = [f"experiment={experiment}", f"hardware={hardware_of(experiment)}"]
    config = compose("online_refiner", overrides)
    config.actor_rollout_ref.model.path = config.critic.model.path = str(ensure_checkpoint())
    try:
        check_with_verl(resolve(config))
    except Exception as error:  # whatever verl raises is its refusal
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return ""


def main() -> None:
    with initialize_config_dir(str(CONFIG), version_base=None):
        for name in experiment_names():
            print(f"experiment {name} {refusal(name)}".rstrip(), flush=True)


if __name__ == "__main__":
    main()

"""Run by test_experiments.py in a process of its own: verl's own validation of every experiment.

Prints a line per experiment: its name, and what verl says where it refuses it.
"""

from hydra import compose, initialize_config_dir
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.experiments import CONFIG, experiment_names, hardware_of
from recipe.online_refiner.resolve.resolving import resolve


def refusal(experiment: str) -> str:
    """What verl says against it, or nothing."""
    overrides = [f"experiment={experiment}", f"hardware={hardware_of(experiment)}"]
    config = compose("online_refiner", overrides)
    config.actor_rollout_ref.model.path = config.critic.model.path = str(ensure_checkpoint())
    resolve(config)
    reward_model = config.reward.reward_model
    try:
        validate_config(config, need_reference_policy(config), need_critic(config))
        omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
        if reward_model.enable:
            omega_conf_to_dataclass(reward_model.rollout)
    except Exception as error:  # whatever verl raises is its refusal
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return ""


def main() -> None:
    with initialize_config_dir(str(CONFIG), version_base=None):
        for name in experiment_names():
            print(f"experiment {name} {refusal(name)}".rstrip(), flush=True)


if __name__ == "__main__":
    main()

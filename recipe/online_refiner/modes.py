"""Our trainer in each of verl's modes (`trainer.v1.trainer_mode`)."""

from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from recipe.online_refiner.choices import Mode
from recipe.online_refiner.trainer import OnlineRefinerTrainer


class SyncTrainer(OnlineRefinerTrainer, PPOTrainerSync):
    """Rollouts and refinements end before the actor trains."""


class ColocateAsyncTrainer(OnlineRefinerTrainer, PPOTrainerColocateAsync):
    """What is under way when a batch is full is interrupted, and goes on after the step."""


class SeparateAsyncTrainer(OnlineRefinerTrainer, PPOTrainerSeparateAsync):
    """Rollouts and refinements go on, on GPUs of their own, while the actor trains."""


TRAINERS: dict[str, type[OnlineRefinerTrainer]] = {
    Mode.SYNC: SyncTrainer,
    Mode.COLOCATE_ASYNC: ColocateAsyncTrainer,
    Mode.SEPARATE_ASYNC: SeparateAsyncTrainer,
}


def register_trainers() -> None:
    """Put our trainers in the place of verl's.

    Its entries are replaced rather than added to: verl takes every name that it does not know for
    an asynchronous mode.
    """
    TRAINER_REGISTRY.update(TRAINERS)

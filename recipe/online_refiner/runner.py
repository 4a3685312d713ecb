"""verl's task runner with our trainer and the refiner's delivery to the agent loops."""

import os
from pathlib import Path

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1


@ray.remote
class OnlineRefinerRunner(TaskRunnerV1.__ray_actor_class__):
    """Runs one training; see verl's `TaskRunnerV1`."""

    def run(self, config: DictConfig) -> None:
        """Train with our trainers in place of verl's."""
        from recipe.online_refiner.modes import register_trainers
        from recipe.online_refiner.run.console import show_our_log
        from recipe.online_refiner.run.trackers import point_trackers

        show_our_log()
        # Here and not in the driver: the trackers are in this process, maybe on another node.
        point_trackers(Path(config.run.dir), os.environ)
        register_trainers()
        super().run(config)

    def init_agent_loop_manager(self) -> None:
        """Make verl's agent loops, then hand them the refiner."""
        super().init_agent_loop_manager()
        self.trainer.clock.lap("agent loops")
        client = self.trainer.refiner.client(self.trainer.get_llm_client())
        if client is not None:
            self.agent_loop_manager.set_refiner(client, self.trainer.plan.refining)

"""verl's task runner with our trainer and the refiner's delivery to the agent loops."""

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1


@ray.remote
class OnlineRefinerRunner(TaskRunnerV1.__ray_actor_class__):
    """Runs one training; see verl's `TaskRunnerV1`."""

    def run(self, config: DictConfig) -> None:
        """Train with our trainers in place of verl's."""
        from recipe.online_refiner.advantage import register_refined_estimators
        from recipe.online_refiner.console import show_our_log
        from recipe.online_refiner.trainers import register_trainers

        show_our_log()
        register_refined_estimators()
        register_trainers()
        super().run(config)

    def init_agent_loop_manager(self) -> None:
        """Make verl's agent loops, then hand them the refiner."""
        from recipe.online_refiner.budgets import refine_limits
        from recipe.online_refiner.settings import read_settings

        super().init_agent_loop_manager()
        client = self.trainer.refiner.client(self.trainer.get_llm_client())
        if client is not None:
            settings = read_settings(self.config)
            limits = refine_limits(self.config, settings)
            self.agent_loop_manager.set_refiner(client, settings, limits)

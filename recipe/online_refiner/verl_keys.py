"""Our settings in verl's own keys: which KL, which penalty coefficient, which agent loop."""

from omegaconf import DictConfig, open_dict

from recipe.online_refiner.settings import Kind, Settings


def apply_settings(config: DictConfig, settings: Settings) -> None:
    """Set verl's KL keys for the constraint's kind, in place. Everything else stays the user's.

    Monitoring the KL makes verl compute the reference's log-probs by a KL loss whose coefficient
    is 0: the reference is forwarded, and the gradient is exactly the one without it.
    """
    actor = config.actor_rollout_ref.actor
    static = settings.constraint.static_kl
    is_static = settings.constraint.kind is Kind.STATIC_KL
    with open_dict(config):
        config.algorithm.use_kl_in_reward = is_static and static.where == "reward"
        if config.algorithm.use_kl_in_reward:
            config.algorithm.kl_ctrl.type = "fixed"
            config.algorithm.kl_ctrl.kl_coef = static.coef
        in_loss = is_static and static.where == "loss"
        actor.use_kl_loss = in_loss or settings.monitor.kl_to_reference
        actor.kl_loss_coef = static.coef if in_loss else 0.0

"""Rules on batches, groups and steps: what verl would assert at the first update, or never end."""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.choices import CRITIC_FREE_ESTIMATORS
from recipe.online_refiner.method.groups import filters_groups
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.gpu_rules import sequence_split, split_of
from recipe.online_refiner.resolve.verl_keys import CRITIC_PACKING

COMPARING_ESTIMATORS = tuple(
    name for name in CRITIC_FREE_ESTIMATORS if not name.startswith("reinforce")
)
"""Those whose advantages are differences within a group; the others normalise over the batch."""


def check_mini_batches(plan: RunPlan) -> Iterator[str]:
    """verl asserts, at the first update, that a mini-batch's rows can be shared out evenly."""
    batch, n = plan.config.data.train_batch_size, plan.config.actor_rollout_ref.rollout.n
    fix = sizes_that_fit(plan, batch)
    for key, section in _updated(plan).items():
        if plan.trainer_gpus % split_of(plan, key):
            continue  # `check_splits` says so
        ranks, mini = plan.trainer_gpus // split_of(plan, key), section.ppo_mini_batch_size
        if mini * n % ranks:
            yield (
                f"{key}.ppo_mini_batch_size={mini}: {mini * n} rows cannot be shared out evenly "
                f"among {ranks} ranks. Fix: {fix}"
            )
        if batch % mini:
            padded = "no mini-batch would be full" if batch < mini else "padding rows would fill it"
            yield (
                f"data.train_batch_size={batch} is no multiple of {key}.ppo_mini_batch_size={mini}"
                f": {padded}. Fix: {fix}"
            )


def _updated(plan: RunPlan) -> dict[str, DictConfig]:
    """The sections of the models that are updated."""
    found = {"actor_rollout_ref.actor": plan.config.actor_rollout_ref.actor}
    return found | ({"critic": plan.config.critic} if plan.has_critic else {})


def sizes_that_fit(plan: RunPlan, batch: int) -> str:
    """Keys and values close to those that are set: whole mini-batches, even shares of each.

    Args:
        batch: the largest; a smaller one is taken if it cannot be shared out among the ranks.
    """
    n = plan.config.actor_rollout_ref.rollout.n
    steps = {key: _even(plan.trainer_gpus // split_of(plan, key), n) for key in _updated(plan)}
    whole = math.lcm(*steps.values())
    fitting = max(whole, batch - batch % whole)
    sizes = {"data.train_batch_size": fitting}
    for key, section in _updated(plan).items():
        divisors = (size for size in range(steps[key], fitting + 1, steps[key])
                    if fitting % size == 0)  # fmt: skip
        asked = section.ppo_mini_batch_size
        sizes[f"{key}.ppo_mini_batch_size"] = min(divisors, key=lambda size: abs(size - asked))
    return " ".join(f"{key}={size}" for key, size in sizes.items()
                    if size != OmegaConf.select(plan.config, key))  # fmt: skip


def _even(ranks: int, n: int) -> int:
    """The smallest number of prompts whose n rollouts each can be shared out among the ranks."""
    return max(1, ranks // math.gcd(ranks, n))


def check_micro_batches(plan: RunPlan) -> Iterator[str]:
    """A micro-batch has a size, and holds one row of full length, in each of verl's passes."""
    actor, rollout = plan.config.actor_rollout_ref.actor, plan.config.actor_rollout_ref.rollout
    if actor.use_dynamic_bsz != rollout.log_prob_use_dynamic_bsz:
        yield (
            f"actor_rollout_ref.rollout.log_prob_use_dynamic_bsz={rollout.log_prob_use_dynamic_bsz}"
            f": verl wants it as actor_rollout_ref.actor.use_dynamic_bsz={actor.use_dynamic_bsz}. "
            "Fix: set both to the same"
        )
    if not actor.use_dynamic_bsz:
        if actor.ppo_micro_batch_size_per_gpu is None and actor.ppo_micro_batch_size is None:
            yield (
                "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=null: no size of "
                "micro-batches. Fix: actor_rollout_ref.actor.use_dynamic_bsz=true, or a number"
            )
        return
    longest = plan.config.data.max_prompt_length + plan.config.data.max_response_length
    for key, split in _token_limits(plan).items():
        tokens = OmegaConf.select(plan.config, key)
        if tokens * split < longest:
            shared = f" over {split} GPUs" if split > 1 else ""
            enough = -(-longest // split)
            yield (
                f"{key}={tokens}{shared}: one row of prompt and response has up to {longest} "
                f"tokens. Fix: {key}={enough} or more, or shorter data.max_response_length"
            )


def _token_limits(plan: RunPlan) -> dict[str, int]:
    """verl's keys for the tokens of one GPU's micro-batch, and the factor that each gets."""
    update, forward = "ppo_max_token_len_per_gpu", "log_prob_max_token_len_per_gpu"
    found = {f"actor_rollout_ref.actor.{update}": sequence_split(plan)}
    following = [f"actor_rollout_ref.rollout.{forward}"]
    if plan.forwards_reference:
        following.append(f"actor_rollout_ref.ref.{forward}")
    if plan.has_critic:
        found[f"critic.{update}"] = sequence_split(plan, "critic")
        following.append(f"critic.{CRITIC_PACKING}")
    for key in following:
        # As it was composed it has the value of the update's key, which is named instead.
        leader = f"critic.{update}" if key.startswith("critic") else next(iter(found))
        if OmegaConf.select(plan.config, key) != OmegaConf.select(plan.config, leader):
            found[key] = found[leader]
    return found


def check_groups(plan: RunPlan) -> Iterator[str]:
    """Groups have two rollouts if they are compared, and dynamic sampling can end."""
    estimator = str(plan.config.algorithm.adv_estimator)
    rollouts = plan.config.actor_rollout_ref.rollout.n
    if estimator in COMPARING_ESTIMATORS and rollouts < 2:
        yield (
            f"actor_rollout_ref.rollout.n={rollouts}: algorithm.adv_estimator={estimator} compares "
            "the rollouts of a prompt, and a group of one has nothing to be compared with. Fix: "
            "actor_rollout_ref.rollout.n=8, or algorithm.adv_estimator=gae"
        )
    groups = plan.config.algorithm.filter_groups
    if not groups.enable:
        return
    if rollouts < 2:
        yield (
            f"algorithm.filter_groups.enable=True with actor_rollout_ref.rollout.n={rollouts}: "
            "every group has equal rewards and would be replaced for ever. Fix: "
            "algorithm.filter_groups.enable=False"
        )
    if groups.max_num_gen_batches > 0:
        yield (
            f"algorithm.filter_groups.max_num_gen_batches={groups.max_num_gen_batches}: verl "
            "ignores it. Fix: set it to 0; max_inflight_gen_batches bounds what is under way"
        )
    if plan.config.data.gen_batch_size not in (None, 1):
        yield (
            f"data.gen_batch_size={plan.config.data.gen_batch_size}: with "
            "algorithm.filter_groups.enable verl takes 1. Fix: data.gen_batch_size=null"
        )
    if groups.max_inflight_gen_batches < 1:
        yield (
            f"algorithm.filter_groups.max_inflight_gen_batches={groups.max_inflight_gen_batches}: "
            "nothing would be generated. Fix: 1 or more"
        )


def check_queue(plan: RunPlan) -> Iterator[str]:
    """The queue holds the rows of a step; it raises an error in the middle of one if it is full."""
    queue = OmegaConf.select(plan.config, "transfer_queue.backend")
    size = OmegaConf.select(queue, "SimpleStorage.total_storage_size") if queue else None
    if size is None or queue.storage_backend != "SimpleStorage":
        return
    data, groups = plan.config.data, plan.config.algorithm.filter_groups
    rows = data.train_batch_size * plan.config.actor_rollout_ref.rollout.n
    most = rows * (max(1, groups.max_inflight_gen_batches) if groups.enable else 1)
    # Refinements are rows of their own beside the policy's.
    most += rows if plan.refines else 0
    if most > size:
        key = "transfer_queue.backend.SimpleStorage.total_storage_size"
        yield (
            f"{key}={size}: a step has up to {most} rows (data.train_batch_size × "
            "actor_rollout_ref.rollout.n, with what is refined and what dynamic sampling has under "
            f"way). Fix: {key}={2 * most}"
        )


def group_warnings(plan: RunPlan) -> Iterator[str]:
    """What dynamic sampling keeps and drops unexpectedly."""
    if not filters_groups(plan.config):
        return
    section, rollouts = plan.settings.constraint, plan.config.actor_rollout_ref.rollout.n
    if section.keep_refined_groups and not plan.refines:
        yield (
            f"constraint.keep_refined_groups=True with constraint.kind={section.kind}: no "
            "refinement is made that could keep a group, so groups are dropped as by DAPO alone. "
            "For the same groups as in a dynamic arm set it to false in both, or "
            "refiner.observe=true here"
        )
    if rollouts & (rollouts - 1):
        yield (
            f"actor_rollout_ref.rollout.n={rollouts} with algorithm.filter_groups.enable=True: "
            "verl drops groups whose rewards have a standard deviation of exactly 0. Unless n is a "
            "power of two, rounding makes it positive for some equal rewards, and their groups stay"
        )


def check_steps(plan: RunPlan) -> Iterator[str]:
    """Something is trained."""
    for key in ("total_epochs", "total_training_steps"):
        value = plan.config.trainer[key]
        if value is not None and value < 1:
            yield f"trainer.{key}={value}: nothing would be trained. Fix: 1 or more"

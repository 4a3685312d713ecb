"""Rules on values that are possible one by one and make no sense: sampling, clipping, schedules."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.plan import RunPlan, paths_of
from recipe.online_refiner.preflight.files_read import table
from recipe.online_refiner.preflight.hours import run_hours
from recipe.online_refiner.preflight.shapes import read_shapes

ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
HIGHEST_CLIP = 1.0
"""A token's probability may double in an update. Published bounds are 0.2 to 0.3 (ours)."""
HIGH_LEARNING_RATE = 1e-4
REAL_PARAMETERS = 1e8
"""Published rates of reinforcement learning are 1e-7 to 1e-5 for models of this size and larger."""
LEAST_BATCH = 2048
LONG_RUN_H = 30 * 24
DAY_H = 24


def check_sampling(plan: RunPlan) -> Iterator[str]:
    """Rollouts are sampled, and so is a validation that says so."""
    rollout = plan.config.actor_rollout_ref.rollout
    if rollout.temperature == 0:
        yield (
            f"{ROLLOUT}.temperature=0: the rollouts of a prompt would all be the same, and verl "
            f"divides the logits by it. Fix: {ROLLOUT}.temperature=1.0"
        )
    held_out = rollout.val_kwargs
    if held_out.do_sample and held_out.temperature == 0:
        yield (
            f"{ROLLOUT}.val_kwargs.temperature=0 with do_sample=True: verl refuses it. Fix: "
            f"{ROLLOUT}.val_kwargs.do_sample=false, or {ROLLOUT}.val_kwargs.temperature=1.0"
        )


def check_engine_batches(plan: RunPlan) -> Iterator[str]:
    """vLLM starts with a batch that holds a token of each sequence, and a whole one if uncut."""
    rollout = plan.config.actor_rollout_ref.rollout
    own = dict(plan.settings.refiner.rollout) if plan.has_refiner_servers else {}
    sections = {ROLLOUT: dict(rollout)} | ({"refiner.rollout": dict(rollout) | own} if own else {})
    for key, section in sections.items():
        tokens, many = section["max_num_batched_tokens"], section["max_num_seqs"]
        if section["name"] != "vllm":
            continue
        if tokens < many:
            yield (
                f"{key}.max_num_batched_tokens={tokens} is below {key}.max_num_seqs={many}: vLLM "
                f"does not start. Fix: {key}.max_num_batched_tokens={max(many, LEAST_BATCH)}"
            )
        longest = rollout.max_model_len
        if not section["enable_chunked_prefill"] and tokens < longest:
            yield (
                f"{key}.max_num_batched_tokens={tokens} with enable_chunked_prefill=False: a "
                f"sequence has up to {longest} tokens. Fix: "
                f"{key}.max_num_batched_tokens={max(many, longest)}"
            )


def check_warmup(plan: RunPlan) -> Iterator[str]:
    """The actor is trained in some step; verl waits for the critic's warm-up also without one."""
    warmup, steps = plan.config.trainer.critic_warmup, planned_steps(plan)
    if steps is not None and warmup >= steps > 0:
        yield (
            f"trainer.critic_warmup={warmup}: the run has {steps} steps, in none of which the "
            "actor would be trained. Fix: trainer.critic_warmup=0"
        )


def check_clips(plan: RunPlan) -> Iterator[str]:
    """The bounds of PPO's ratio, 1 - low and 1 + high; verl's other losses read them otherwise."""
    actor = plan.config.actor_rollout_ref.actor
    if not _clips_a_ratio(actor):
        return
    low, high = actor.clip_ratio_low, actor.clip_ratio_high
    if low >= 1:
        yield (
            f"{ACTOR}.clip_ratio_low={low}: no ratio is below 1 - {low}, so nothing would be "
            f"clipped. Fix: {ACTOR}.clip_ratio_low=0.2"
        )
    if high > HIGHEST_CLIP:
        yield (
            f"{ACTOR}.clip_ratio_high={high}: a token's probability could grow by "
            f"{1 + high:g} times in one update. Fix: {ACTOR}.clip_ratio_high=0.28, or at most "
            f"{HIGHEST_CLIP:g}"
        )
    elif high < low < 1:
        yield (
            f"{ACTOR}.clip_ratio_high={high} is below {ACTOR}.clip_ratio_low={low}: probabilities "
            f"could fall further than they could rise. Fix: {ACTOR}.clip_ratio_low={high} "
            f"{ACTOR}.clip_ratio_high={low}"
        )


def value_warnings(plan: RunPlan) -> Iterator[str]:
    """What is possible, and hardly meant."""
    yield from _sampling_warnings(plan)
    yield from _clip_warnings(plan)
    yield from _rate_warnings(plan)
    hours = run_hours(plan)
    if hours is not None and hours > LONG_RUN_H:
        yield (
            f"by the estimate the run takes {hours:,.0f} hours ({hours / DAY_H:,.0f} days). Fewer: "
            f"more GPUs, shorter data.max_response_length, or trainer.total_training_steps below "
            f"{plan.config.trainer.total_training_steps}"
        )


def _sampling_warnings(plan: RunPlan) -> Iterator[str]:
    held_out = plan.config.actor_rollout_ref.rollout.val_kwargs
    if held_out.n > 1 and (held_out.temperature == 0 or held_out.top_k == 1):
        yield (
            f"{ROLLOUT}.val_kwargs.n={held_out.n} with val_kwargs.temperature="
            f"{held_out.temperature}: each problem is answered {held_out.n} times by the same "
            f"response. {ROLLOUT}.val_kwargs.n=1, or sample"
        )


def _clip_warnings(plan: RunPlan) -> Iterator[str]:
    """verl reads `clip_ratio` only if neither of the others is set, and its defaults set both."""
    actor = plan.config.actor_rollout_ref.actor
    both = (actor.clip_ratio_low, actor.clip_ratio_high)
    if _clips_a_ratio(actor) and actor.clip_ratio not in both:
        yield (
            f"{ACTOR}.clip_ratio={actor.clip_ratio} is not read: verl clips by clip_ratio_low="
            f"{both[0]} and clip_ratio_high={both[1]}, which are set. Set these"
        )


def _clips_a_ratio(actor: DictConfig) -> bool:
    return str(OmegaConf.select(actor, "policy_loss.loss_mode") or "vanilla") == "vanilla"


def _rate_warnings(plan: RunPlan) -> Iterator[str]:
    sections = {ACTOR: plan.config.actor_rollout_ref.actor}
    if plan.has_critic:
        sections["critic"] = plan.config.critic
    steps, shapes = planned_steps(plan), read_shapes(plan)[0]
    for key, section in sections.items():
        warmup = section.optim.get("lr_warmup_steps") or 0
        if steps is not None and warmup > steps:
            yield (
                f"{key}.optim.lr_warmup_steps={warmup}: the run has {steps} steps, so the learning "
                f"rate never reaches {key}.optim.lr={section.optim.lr}"
            )
        if section.optim.lr == 0:
            yield f"{key}.optim.lr=0: nothing is learnt"
        if section.optim.clip_grad == 0 and not plan.is_megatron:
            yield (
                f"{key}.optim.clip_grad=0: gradients are scaled to a norm of 0, so nothing is "
                f"learnt ({section.strategy}; under Megatron 0 is no clipping). "
                f"{key}.optim.clip_grad=1.0, or a large number for no clipping"
            )
        shape = shapes.policy if key == ACTOR else shapes.critic
        large = shape is not None and shape.parameters >= REAL_PARAMETERS
        if large and section.optim.lr > HIGH_LEARNING_RATE:
            yield (
                f"{key}.optim.lr={section.optim.lr}: models of this size are trained by "
                "reinforcement learning with 1e-7 to 1e-5"
            )


def planned_steps(plan: RunPlan) -> int | None:
    """How many steps the run has at most; None if neither its number nor the data's rows tell."""
    trainer, data = plan.config.trainer, plan.config.data
    rows = sum(table(path).rows for path in paths_of(data.train_files))
    epochs = rows // data.train_batch_size * trainer.total_epochs
    found = [count for count in (trainer.total_training_steps, epochs) if count]
    return min(found, default=None)

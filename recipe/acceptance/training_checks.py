"""The judgement of a training: did it train, do servers and actor agree, did memory come and go."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from recipe.acceptance.machine import GIB
from recipe.acceptance.results import Check, Status
from recipe.acceptance.timeline import refines
from recipe.acceptance.training import TrainingSeen

DIFFERENCE = "monitor/rollout_logprob_diff_max"
PROBABILITY = "training/rollout_probs_diff_mean"
AGREES_NATS = {"cuda": 1.0, "cpu": 1e-3}
"""Largest difference of a token's log-probability between server and actor. In bfloat16 one step of
a logit between 16 and 32 is 0.125, and both round at every layer. Ours."""
AGREES_ON_AVERAGE = {"cuda": 0.02, "cpu": 1e-5}
"""Mean difference of a token's probability. Ours."""
FINITE = ("actor/pg_loss", "actor/grad_norm", "constraint/penalty_mean")
ESTIMATE_MARGIN = 1.05


def steps_check(seen: TrainingSeen) -> list[Check]:
    """Whether all steps were made, and the constraint was at work in those that were refined."""
    name, expected = "training with the constraint", f"{seen.steps} steps, refinements accepted"
    accepted = [data.get("constraint/kept_total", 0.0) for data in seen.refined.values()]
    paid = [data.get("constraint/penalty_mean", 0.0) for data in seen.refined.values()]
    odd = [
        key
        for data in seen.refined.values()
        for key in FINITE
        if not math.isfinite(data.get(key, math.nan))
    ]
    figure = (
        f"{len(seen.trained)} of {seen.steps} steps, {len(seen.refined)} of them refined; "
        f"penalty {_range(paid)} nats; refinements accepted {_range(accepted)} a step"
    )
    holds = len(seen.trained) == seen.steps and not odd and min(paid, default=0.0) > 0
    if odd:
        figure += f"; absent or not finite: {', '.join(sorted(set(odd)))}"
    if seen.failure:
        figure += f"; {seen.failure}"
    status = Status.PASS if holds and not seen.failure else Status.FAIL
    return [Check(name, status, figure, expected, {"penalty": paid, "accepted": accepted})]


def log_prob_check(device: str, seen: TrainingSeen) -> list[Check]:
    """Whether the servers compute what the actor computes."""
    seen.require(1)
    largest = max(data[DIFFERENCE] for data in seen.trained.values())
    mean = max(data[PROBABILITY] for data in seen.trained.values())
    most, average = AGREES_NATS[device], AGREES_ON_AVERAGE[device]
    holds = largest <= most and mean <= average
    figure = f"{largest:.2g} nats at most on a token; probabilities differ by {mean:.2g} on average"
    expected = f"at most {most:g} nats, and {average:g} on average"
    numbers = {"largest_nats": largest, "mean_probability": mean}
    status = Status.PASS if holds else Status.FAIL
    return [Check("rollout and actor log-probs", status, figure, expected, numbers)]


def sync_check(seen: TrainingSeen) -> list[Check]:
    """Whether the weights that were sent change what the servers answer."""
    seen.require(seen.steps)
    before, after = seen.outputs[0], seen.outputs[seen.steps]
    changed = sum(output != after[prompt] for prompt, output in before.items())
    seconds = [data["timing_s/update_weights"] for data in seen.trained.values()]
    figure = (
        f"{changed} of {len(before)} greedy answers changed from before the first step to after "
        f"the last; a sync takes {statistics.median(seconds):.2f} s"
    )
    numbers = {"changed": changed, "of": len(before), "sync_s": seconds}
    status = Status.PASS if changed else Status.FAIL
    return [Check("weight sync", status, figure, "some greedy answers change", numbers)]


def memory_checks(seen: TrainingSeen) -> list[Check]:
    """What is in use in each phase, beside preflight's estimate."""
    peaks, memory = seen.estimated, seen.memory
    rollout, update = (None, None) if peaks is None else (peaks.rollout, peaks.update)
    checks = [
        _held("memory while rollouts are made", memory.rollouts, rollout),
        _held("memory during an update", memory.update, update),
    ]
    name, expected = "memory with all servers asleep", "at most half of that with them awake"
    if memory.asleep is None or memory.rollouts is None:
        figure = "no sample fell into a time at which they certainly slept"
        return [*checks, Check(name, Status.NONE, figure, expected)]
    figure = f"{_gib(memory.asleep)}, of {_gib(memory.rollouts)} awake"
    if peaks is None:
        return [*checks, Check(name, Status.NONE, f"{figure}; servers do not sleep here", expected)]
    holds = memory.asleep <= memory.rollouts / 2
    status = Status.PASS if holds else Status.FAIL
    return [*checks, Check(name, status, figure, expected, {"bytes": memory.asleep})]


def _held(name: str, used: int | None, estimated: int | None) -> Check:
    expected = "at most preflight's estimate"
    if used is None:
        return Check(name, Status.NONE, "no sample fell into a time that is certain", expected)
    numbers = {"bytes": used, "estimated_bytes": estimated}
    if estimated is None:
        figure = f"{_gib(used)}; preflight makes no estimate without a GPU"
        return Check(name, Status.NONE, figure, expected, numbers)
    holds = used <= ESTIMATE_MARGIN * estimated
    figure = f"{_gib(used)}, estimated {_gib(estimated)}"
    return Check(name, Status.PASS if holds else Status.FAIL, figure, expected, numbers)


def step_time_check(seen: TrainingSeen) -> list[Check]:
    """What refining costs a step: neighbouring steps of one training, the first left out."""
    seen.require(3)
    times = {step: data["timing_s/step"] for step, data in seen.trained.items() if step > 1}
    refined = [time for step, time in times.items() if refines(step)]
    without = [time for step, time in times.items() if not refines(step)]
    ratio = statistics.median(refined) / statistics.median(without)
    figure = (
        f"{_range(refined)} s with refinement, {_range(without)} s without: "
        f"{ratio:.2f} times as long"
    )
    numbers = {"refined_s": refined, "without_s": without, "ratio": ratio}
    expected = "a figure; at most twice as long"
    status = Status.PASS if ratio <= 2.0 else Status.WARN
    return [Check("step time with refinement", status, figure, expected, numbers)]


def _range(values: Sequence[float]) -> str:
    if not values:
        return "none"
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"

"""How long a refinement waits for its turn, against the deadline after which it is dropped.

An estimate (ours), from what a GPU has to read and to compute. A server decodes b sequences at once
in steps of

    (2·P/TP + b·c·k/TP) / B  +  2·P·b / (TP·F)

seconds: it reads all weights and the cache (c tokens a sequence, k bytes a token) at B bytes a
second, and computes 2·P operations a sequence at F a second. A prompt of p tokens takes
2·P·p/(TP·F) more. b is what the cache holds at the mean length, and no more than the engine and the
client allow.

All rollouts of a step are asked for at once, and each finished one asks for its refinement. Beside
each other the two kinds of server share the GPUs evenly, so that the refinements that the rollouts'
own time does not cover are left when the last rollout ends:

    backlog = max(0, time of all refinements alone - time of all rollouts alone)

The last refinement waits for the backlog and its own decoding, the mean one for half of it. Every
rollout is taken to be refined, by plain decoding, at half of the longest prompt and response; by
blocks (`refiner.block_tokens`) it is as many requests, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipe.online_refiner.choices import REFINER_POOL
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.gpu_memory_rules import estimate
from recipe.online_refiner.preflight.memory import ModelShape, ServerShare
from recipe.online_refiner.preflight.shapes import read_shapes
from recipe.online_refiner.resolve.refiner_engine import refiner_rollout
from recipe.online_refiner.settings import MOST_SECONDS
from refiner_worker.engine import REPLICA_SPLITS, replica_gpus

MEAN_SHARE = 0.5
"""Mean length of prompts and responses, of the longest that are allowed."""
EFFICIENCY = 0.6
"""Share of a GPU's rated bandwidth that decoding reaches."""
OPERATIONS_PER_BYTE = 60
"""Operations that a GPU reaches while it could read one byte: 40 % of 150, an A100's ratio."""


@dataclass(frozen=True)
class Load:
    """One kind of server with what it has to do in a step.

    Attributes:
        servers: how many there are. tensor_parallel: GPUs of each.
        requests: of a step, over all servers. prompt_tokens, output_tokens: of a mean one.
        in_turn: requests of one rollout or refinement, which follow one another.
        cache_tokens: that one server holds. most_at_once: that the engine and its client allow.
    """

    shape: ModelShape
    servers: int
    tensor_parallel: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    cache_tokens: int
    most_at_once: int
    in_turn: int = 1

    @property
    def at_once(self) -> int:
        """b: sequences that one server decodes together."""
        held = self.cache_tokens // max(1, self.prompt_tokens + self.output_tokens)
        share = -(-self.requests // (self.in_turn * self.servers))
        return max(1, min(held, self.most_at_once, share))

    def step_s(self, bandwidth: float) -> float:
        """Seconds of one decoding step at `bandwidth` rated bytes a second."""
        reached = bandwidth * EFFICIENCY * self.tensor_parallel
        context = self.prompt_tokens + self.output_tokens // 2
        weights = 2 * self.shape.parameters
        cache = self.at_once * context * self.shape.cache_bytes_per_token
        return (weights + cache) / reached + self.at_once * self._operations_s(bandwidth)

    def request_s(self, bandwidth: float) -> float:
        """Seconds of one request that does not wait, beside the others of its server."""
        prompt = self.at_once * self.prompt_tokens * self._operations_s(bandwidth)
        return prompt + self.output_tokens * self.step_s(bandwidth)

    def all_s(self, bandwidth: float) -> float:
        """Seconds of all requests, if this server alone uses the GPUs."""
        return self.requests / (self.servers * self.at_once) * self.request_s(bandwidth)

    def _operations_s(self, bandwidth: float) -> float:
        rate = bandwidth * OPERATIONS_PER_BYTE * self.tensor_parallel
        return 2 * self.shape.parameters / rate


@dataclass(frozen=True)
class Waiting:
    """Seconds from asking for a refinement to having it."""

    mean_s: float
    last_s: float


def waiting(rollouts: Load, refinements: Load, bandwidth: float, shares_gpus: bool) -> Waiting:
    """What refinements wait for; `shares_gpus`: both kinds of server are on the same GPUs."""
    own = refinements.in_turn * refinements.request_s(bandwidth) * (2 if shares_gpus else 1)
    backlog = max(0.0, refinements.all_s(bandwidth) - rollouts.all_s(bandwidth))
    return Waiting(own + backlog / 2, own + backlog)


@dataclass(frozen=True)
class Loads:
    """What the servers of a run have to do in a step.

    Attributes:
        refinements: None if nothing is refined. bandwidth: of a GPU, rated bytes a second.
    """

    rollouts: Load
    refinements: Load | None
    bandwidth: float


def loads(plan: RunPlan) -> Loads | None:
    """Of this run; None if the GPUs' bandwidth or a model's shape is not known."""
    machine, sizes = plan.config.get("machine"), estimate(plan)
    shapes, _ = read_shapes(plan)
    if machine is None or sizes is None or shapes.policy is None:
        return None
    if machine.get("gpu_bandwidth_gb_s") is None:
        return None
    refinements = None
    if plan.refines:
        shape, server = shapes.refiner or shapes.policy, "refiner" if shapes.refiner else "policy"
        refinements = _refinements(plan, shape, sizes.servers[server])
    rollouts = _rollouts(plan, shapes.policy, sizes.servers["policy"])
    return Loads(rollouts, refinements, 1e9 * machine.gpu_bandwidth_gb_s)


def expected_waiting(plan: RunPlan) -> Waiting | None:
    """Of this run; None if nothing is refined, or the GPUs' bandwidth is not known."""
    found = loads(plan) if plan.refines else None
    if found is None or found.refinements is None:
        return None
    return waiting(found.rollouts, found.refinements, found.bandwidth, not plan.has_own_pool)


def _rollouts(plan: RunPlan, shape: ModelShape, share: ServerShare) -> Load:
    data, rollout = plan.config.data, plan.config.actor_rollout_ref.rollout
    return Load(
        shape=shape,
        servers=max(1, plan.trainer_gpus // replica_gpus(rollout)),
        tensor_parallel=rollout.tensor_model_parallel_size,
        requests=data.train_batch_size * rollout.n,
        prompt_tokens=int(MEAN_SHARE * data.max_prompt_length),
        output_tokens=int(MEAN_SHARE * data.max_response_length),
        cache_tokens=share.cache_tokens,
        most_at_once=rollout.max_num_seqs,
    )


def _refinements(plan: RunPlan, shape: ModelShape, share: ServerShare) -> Load:
    """Their prompts hold the rollout's prompt and response, or a block and what precedes it."""
    data = plan.config.data
    rollout = refiner_rollout(plan, *REPLICA_SPLITS, "agent", "max_num_seqs")
    pool = plan.pools.get(REFINER_POOL, plan.trainer_gpus)
    servers = max(1, pool // replica_gpus(rollout))
    asked = plan.settings.refiner.max_concurrency * rollout.agent.num_workers
    problem, response = (
        int(MEAN_SHARE * length) for length in (data.max_prompt_length, data.max_response_length)
    )
    block, limit = plan.limits.block_tokens, plan.limits.max_prompt_tokens
    parts = 1 if block is None else max(1, -(-response // block))
    # The prompt holds the response, or the block and, on average, half of what precedes it.
    shown = response if block is None else response // parts + response // 2
    return Load(
        shape=shape,
        servers=servers,
        tensor_parallel=rollout.tensor_model_parallel_size,
        requests=data.train_batch_size * plan.config.actor_rollout_ref.rollout.n * parts,
        prompt_tokens=min(limit, problem + shown),
        output_tokens=response // parts,
        cache_tokens=share.cache_tokens,
        most_at_once=max(1, min(rollout.max_num_seqs, asked // servers)),
        in_turn=parts,
    )


def check_deadline(plan: RunPlan) -> Iterator[str]:
    """The mean refinement is there before its deadline, and the step's, by the estimate."""
    found, refiner = expected_waiting(plan), plan.settings.refiner
    if found is None:
        return
    dropped, room = (
        "so that about half would be dropped. Fix: ",
        f"more room for it ({_room(plan)})",
    )
    if refiner.deadline_s < found.mean_s:
        yield (
            f"refiner.deadline_s={refiner.deadline_s:g}: by the estimate refinements wait "
            f"{found.mean_s:.0f} s on average and {found.last_s:.0f} s at the end of the rollouts, "
            + dropped
            + " or ".join([*_deadline_fix(found.last_s), room])
        )
    if refiner.step_deadline_s is not None and refiner.step_deadline_s < _mean_end_s(plan, found):
        yield (
            f"refiner.step_deadline_s={refiner.step_deadline_s:g}: by the estimate a step's mean "
            f"refinement ends {_mean_end_s(plan, found):.0f} s after its first verdict, "
            + f"{dropped}refiner.step_deadline_s=null, or {room}"
        )


def _deadline_fix(last_s: float) -> tuple[str, ...]:
    """The deadline that waits for the last refinement, if it is one that may be set."""
    seconds = _rounded(last_s)
    return (f"refiner.deadline_s={seconds},",) if seconds <= MOST_SECONDS else ()


def deadline_warnings(plan: RunPlan) -> Iterator[str]:
    """The last refinements of a step may be dropped."""
    found, refiner = expected_waiting(plan), plan.settings.refiner
    if found is None:
        return
    ends_s = _rollouts_s(plan) + found.last_s
    for key, limit_s, mean_s, last_s in (
        ("deadline_s", refiner.deadline_s, found.mean_s, found.last_s),
        ("step_deadline_s", refiner.step_deadline_s, _mean_end_s(plan, found), ends_s),
    ):
        if limit_s is not None and mean_s <= limit_s < last_s:
            yield (
                f"refiner.{key}={limit_s:g}: by the estimate the last refinements of a step take "
                f"{last_s:.0f} s, and some would be dropped. refiner.{key}={_rounded(last_s)} "
                "waits for them"
            )


def _mean_end_s(plan: RunPlan, found: Waiting) -> float:
    """When a step's mean refinement is there, from its first verdict on."""
    return _rollouts_s(plan) / 2 + found.mean_s


def _rollouts_s(plan: RunPlan) -> float:
    """From a step's first verdict to its last."""
    given = loads(plan)
    return 0.0 if given is None else given.rollouts.all_s(given.bandwidth)


def _room(plan: RunPlan) -> str:
    """What would make refinements faster: their share of the GPUs, or GPUs of their own."""
    share = "refiner.rollout.gpu_memory_utilization"
    return f"refiner.pool.nnodes, {share}" if plan.has_own_pool else f"{share}, refiner.placement"


def _rounded(seconds: float) -> int:
    """Up to whole minutes."""
    return 60 * (int(seconds) // 60 + 1)

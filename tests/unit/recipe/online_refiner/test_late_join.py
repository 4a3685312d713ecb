"""A step that joins its refinements late: when it waits, for what, and in whose time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import DictConfig
from steps import refinement, rollout, step_of
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from recipe.online_refiner.choices import Stage
from recipe.online_refiner.late_join import LateJoinTrainer
from recipe.online_refiner.method.constraint import Constraint, Step
from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.records import Refinement
from recipe.online_refiner.refine.counts import counted
from recipe.online_refiner.refine.late import LateRefinements, joined
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.run.step_times import StepTimes

Compose = Callable[..., DictConfig]
POOL = "refiner.placement=pool"
BETTER = refinement((5, 8), (1, 0))
BARE = [rollout("a_0_0", (5, 6)), rollout("a_1_0", (5, 7))]
WITHOUT = step_of(BARE)


def test_the_refinements_of_a_step_are_given_once_the_last_is_settled() -> None:
    async def run() -> None:
        late, last = LateRefinements(), asyncio.Event()

        async def refined(found: Refinement | None, after: asyncio.Event | None) -> Any:
            if after is not None:
                await after.wait()
            return found

        late.start(1, "a_0_0", refined(BETTER, None))
        late.start(1, "a_1_0", refined(None, None))
        late.start(1, "b_0_0", refined(BETTER, last))
        asked = asyncio.create_task(late.of_step(1))
        await asyncio.sleep(0)
        late.start(2, "c_0_0", refined(BETTER, None))
        await asyncio.sleep(0)
        assert not asked.done()
        last.set()
        assert await asked == {"a_0_0": BETTER, "b_0_0": BETTER}
        assert await late.of_step(1) == {}
        assert await late.of_step(2) == {"c_0_0": BETTER}

    asyncio.run(run())


def test_what_a_refinement_raises_is_raised_where_it_is_waited_for() -> None:
    async def run() -> None:
        late = LateRefinements()

        async def broken() -> Refinement:
            raise RuntimeError("the client is broken")

        late.start(1, "a_0_0", broken())
        with pytest.raises(RuntimeError, match="the client is broken"):
            await late.of_step(1)

    asyncio.run(run())


def test_rollouts_are_joined_by_key_and_stay_bare_without_a_refinement() -> None:
    one, other = joined(BARE, {"a_1_0": BETTER, "z_0_0": BETTER})
    assert (one.refinement, other.refinement) == (None, BETTER)


def test_seconds_are_booked_to_the_part_that_they_belong_to() -> None:
    times = StepTimes()
    with times.booked("ref", within="old_log_prob"):
        pass
    with times.waiting(within="old_log_prob"):
        pass
    (_, _, passed), (_, _, waited) = times._parts
    assert times.waited_s == waited
    timers = {"gen": 4.0, "old_log_prob": 3.0}
    times.settle(timers)
    expected = {"gen": 4.0 + waited, "ref": passed, "old_log_prob": 3.0 - passed - waited}
    assert timers == pytest.approx(expected)
    times.settle(timers)
    assert timers == pytest.approx(expected)
    assert times.waited_s == 0.0


@pytest.mark.parametrize(
    ("overrides", "stage"),
    [
        (["constraint.inject=sft"], Stage.UPDATE),
        (["constraint.inject=sft", "constraint.schedule=adaptive"], Stage.ADVANTAGES),
        (["constraint.inject=sft", "constraint.lambda=0"], Stage.ADVANTAGES),
        (["constraint.inject=sft", "trainer.critic_warmup=2"], Stage.ADVANTAGES),
        (
            [
                *("constraint.inject=sft", "constraint.conditioning=self_feeding"),
                *("constraint.tokens=aligned", "constraint.schedule=adaptive"),
            ],
            Stage.LOG_PROBS,
        ),
        (["constraint.inject=advantage"], Stage.LOG_PROBS),
        (
            ["constraint.inject=advantage", "constraint.conditioning=teacher_forcing"],
            Stage.ADVANTAGES,
        ),
        (["constraint.kind=none", "refiner.observe=true"], Stage.ADVANTAGES),
        (["constraint.kind=chord", "refiner.observe=true"], Stage.ADVANTAGES),
    ],
)
def test_a_step_waits_where_its_constraint_reads_refinements_first(
    composed: Compose, overrides: list[str], stage: Stage
) -> None:
    config = composed(POOL, *overrides)
    trainer = Trainer(config, [])
    step = step_of(BARE, trains_actor=config.trainer.critic_warmup <= 1)
    trainer._begin(step)
    assert trainer._joins_at is stage


@pytest.mark.parametrize(
    "overrides",
    [
        ["refiner.placement=colocated"],
        [POOL, "refiner.late_join=false"],
        [POOL, "trainer.v1.trainer_mode=colocate_async"],
        [POOL, "algorithm.filter_groups.enable=true"],
        [POOL, "constraint.kind=none"],
    ],
)
def test_a_step_joins_late_only_if_its_servers_are_awake_and_nothing_else_reads_them(
    composed: Compose, overrides: list[str]
) -> None:
    assert resolve(composed(POOL)).joins_late
    assert not resolve(composed(*overrides)).joins_late


class Manager:
    """Gives one refinement of the step that it is asked for."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen

    def late_refinements(self, step: int) -> dict[str, Refinement]:
        self._seen.append(("join", step))
        return {"a_0_0": BETTER}


class Passes(PPOTrainer):
    """verl's passes, which note the settings that they find and leave one behind."""

    seen: list[Any]

    def on_sample_end(self) -> None: ...

    def on_step_end(self) -> None: ...

    def _note(self, name: str, batch: KVBatchMeta) -> KVBatchMeta:
        self.seen.append((name, dict(batch.extra_info)))
        batch.extra_info[name] = True
        return batch

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        return self._note("ref", batch)

    def _compute_values(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        return self._note("values", batch)


class Trainer(LateJoinTrainer, Passes):
    """Ours on such passes; verl's constructor wants a cluster."""

    def __init__(self, config: DictConfig, seen: list[Any]) -> None:
        self.plan = resolve(config)
        self.constraint = constraint_class(config)(self.plan)
        self.agent_loop_manager = Manager(seen)
        self.seen = seen
        self._times, self._joins_at, self._passed = StepTimes(), None, {}
        self._counts = counted(BARE)
        self.use_reference_policy = self.use_critic = True

    def _watches_reference(self) -> bool:
        return True


def through(trainer: Trainer, step: Step) -> KVBatchMeta:
    """The parts of a step that may join, as our trainer calls them."""
    batch = KVBatchMeta(keys=["a_0_0"], tags=[{}], partition_id="train", extra_info={"t": 1.0})
    trainer._begin(step)
    trainer._pass_ahead(batch, {})
    trainer._reach(Stage.LOG_PROBS, step, within="old_log_prob")
    trainer.seen.append(("old", dict(batch.extra_info)))
    trainer._compute_ref_log_prob(batch, {})
    trainer._compute_values(batch, {})
    trainer._reach(Stage.ADVANTAGES, step, within="adv")
    trainer.seen.append(("adv", dict(batch.extra_info)))
    trainer._reach(Stage.UPDATE, step, within="update_actor")
    return batch


def test_labels_are_waited_for_after_the_passes_that_need_none(composed: Compose) -> None:
    """Each pass has the settings that it has in verl's order, and is made once."""
    seen: list[Any] = []
    trainer, step = Trainer(composed(POOL, "constraint.inject=advantage"), seen), step_of(BARE)
    began: list[int] = []
    trainer.constraint.begin = lambda step: began.append(len(step.accepted))  # type: ignore[method-assign]
    through(trainer, step)
    after = {"t": 1.0, "ref": True, "values": True}
    assert seen == [
        ("ref", {"t": 1.0}),
        ("values", {"t": 1.0}),
        ("join", 1),
        ("old", {"t": 1.0}),
        ("adv", after),
    ]
    assert began == [1], "the constraint begins once, with the refinements"
    assert [one.key for one in step.accepted] == ["a_0_0"]
    assert step.accepted[0].states is not None
    assert (trainer._counts.rollouts, step.improvement_ratio) == (1, 1.0)


def test_supervision_waits_until_the_update(composed: Compose) -> None:
    seen: list[Any] = []
    trainer, step = Trainer(composed(POOL), seen), step_of(BARE)
    through(trainer, step)
    assert [name for name, _ in seen] == ["old", "ref", "values", "adv", "join"]
    assert [one.key for one in step.accepted] == ["a_0_0"]


def test_a_reading_that_is_only_watched_is_waited_for_before_the_pass_that_yields_it(
    composed: Compose,
) -> None:
    seen: list[Any] = []
    through(Trainer(composed(POOL, "monitor.self_fed_ce=true"), seen), step_of(BARE))
    assert [name for name, _ in seen] == ["ref", "values", "join", "old", "adv"]


def test_what_is_only_observed_is_no_matter_of_the_constraint(composed: Compose) -> None:
    seen: list[Any] = []
    trainer = Trainer(composed(POOL, "constraint.kind=none", "refiner.observe=true"), seen)
    began: list[Any] = []
    trainer.constraint.begin = lambda step: began.append(step.rollouts)  # type: ignore[method-assign]
    through(trainer, step_of(BARE))
    assert [name for name, _ in seen] == ["old", "ref", "values", "join", "adv"]
    assert began == [BARE]


def test_a_constraint_of_ones_own_has_all_from_the_first_hook_on(composed: Compose) -> None:
    assert Constraint(resolve(composed())).reads_at(WITHOUT) is Stage.LOG_PROBS


@pytest.mark.parametrize(("measures", "stage"), [(True, Stage.UPDATE), (False, Stage.ADVANTAGES)])
def test_what_only_the_update_reads_is_joined_before_a_pass_that_measures_it(
    measures: bool, stage: Stage, composed: Compose
) -> None:
    class Own(Constraint):
        def reads_at(self, step: Step) -> Stage:
            return Stage.UPDATE

        def measures_in_update(self, step: Step) -> bool:
            return measures

    assert Own(resolve(composed())).joins_at(WITHOUT) is stage

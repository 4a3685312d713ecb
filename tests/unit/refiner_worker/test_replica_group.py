"""A group keeps serving while members die, and replaces them when there is memory for it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from refiner_worker.replica_group import GroupHealth, GroupSettings, ReplicaGroup, Server


@dataclass
class FakeServer:
    """A server that writes down what is asked of it, and fails in the way it is told."""

    address: str
    log: list[str]
    fault: str = ""

    async def wake_up(self) -> None:
        await self._do("wake")

    async def sleep(self) -> None:
        await self._do("sleep")

    async def interrupt(self) -> None:
        await self._do("interrupt")

    async def go_on(self) -> None:
        await self._do("go on")

    async def load(self, model_path: str) -> None:
        await self._do(f"load {model_path}")

    async def is_healthy(self) -> bool:
        if self.fault == "hangs":
            await asyncio.sleep(60)
        if self.fault == "dead":
            raise ConnectionError("gone")
        return self.fault != "engine dead"

    async def discard(self) -> None:
        self.log.append(f"{self.address} discarded")

    async def _do(self, what: str) -> None:
        if self.fault == "hangs":
            await asyncio.sleep(60)
        self.log.append(f"{self.address} {what}")


@dataclass
class FakeRouter:
    known: list[str] = field(default_factory=list)
    load: int = 0

    async def add(self, server: Server) -> None:
        self.known.append(server.address)

    async def remove(self, address: str) -> None:
        self.known.remove(address)

    async def inflight(self) -> int:
        return self.load


class World:
    """A group of two with everything it does in one log."""

    def __init__(
        self, sleeps: bool = False, interrupts: bool = False, any_time: bool = True, **more: Any
    ) -> None:
        self.log: list[str] = []
        self.servers: dict[str, FakeServer] = {}
        self.router = FakeRouter()
        self.broken_launches = 0
        settings = GroupSettings(
            *(2, sleeps, interrupts, any_time),
            **{"ping_timeout_s": 0.01, "call_timeout_s": 0.01, "max_launches": 3} | more,
        )
        self.group = ReplicaGroup(self._launch, self.router, settings)

    async def _launch(self, rank: int, launch: int) -> FakeServer:
        if launch > 0 and self.broken_launches > 0:
            self.broken_launches -= 1
            raise RuntimeError("no memory")
        server = FakeServer(f"{rank}.{launch}", self.log)
        self.servers[server.address] = server
        self.log.append(f"{server.address} launched")
        return server

    def run(self, *steps: Coroutine[Any, Any, None]) -> GroupHealth:
        async def all_steps() -> None:
            for step in steps:
                await step

        asyncio.run(all_steps())
        return self.group.health()

    async def inject(self, address: str, fault: str) -> None:
        self.servers[address].fault = fault


def test_servers_that_share_gpus_sleep_and_wake_around_every_step() -> None:
    world = World(sleeps=True)
    group = world.group
    world.run(group.start(), group.sleep(), group.wake_up(), group.sleep())
    actions = ["sleep", "wake", "sleep"]
    assert world.log[:2] == ["0.0 launched", "1.0 launched"]
    for address in ("0.0", "1.0"):
        own = [line.split()[1] for line in world.log[2:] if line.startswith(address)]
        assert own == actions


def test_requests_are_interrupted_before_sleep_and_taken_again_after_waking() -> None:
    world = World(sleeps=True, interrupts=True)
    group = world.group
    world.run(group.start(), group.sleep(), group.wake_up())
    own = [line.removeprefix("0.0 ") for line in world.log if line.startswith("0.0")]
    assert own == ["launched", "interrupt", "sleep", "wake", "go on"]


def test_neither_waking_nor_sleep_is_asked_for_twice() -> None:
    world = World(sleeps=True)
    group = world.group
    world.run(group.start(), group.wake_up(), group.sleep(), group.sleep())
    assert sorted(world.log[2:]) == ["0.0 sleep", "1.0 sleep"]


def test_servers_with_gpus_of_their_own_never_sleep() -> None:
    world = World(sleeps=False)
    world.run(world.group.start(), world.group.sleep(), world.group.wake_up())
    assert world.log == ["0.0 launched", "1.0 launched"]


@pytest.mark.parametrize("fault", ["dead", "engine dead"])
def test_a_dead_server_gets_no_more_requests_and_is_replaced(fault: str) -> None:
    world = World()
    group = world.group
    lost = world.run(group.start(), world.inject("1.0", fault), group.check())
    assert lost == GroupHealth(alive=1, lost_total=1, restarts_total=0, max_inflight=0)
    assert world.router.known == ["0.0"]
    assert world.log[-1] == "1.0 discarded"
    restored = world.run(group.restore())
    assert restored == GroupHealth(alive=2, lost_total=1, restarts_total=1, max_inflight=0)
    assert world.router.known == ["0.0", "1.1"]


def test_a_server_that_hangs_is_given_some_pings_before_it_counts_as_dead() -> None:
    world = World(missed_pings=2)
    group = world.group
    start = (group.start(), world.inject("0.0", "hangs"), group.check())
    assert world.run(*start).alive == 2
    assert world.run(group.check()).alive == 1
    assert world.router.known == ["1.0"]


def test_an_answered_ping_forgives_the_missed_ones() -> None:
    world = World(missed_pings=2)
    group = world.group
    health = world.run(
        *(group.start(), world.inject("0.0", "hangs"), group.check()),
        *(world.inject("0.0", ""), group.check()),
        *(world.inject("0.0", "hangs"), group.check()),
    )
    assert health.alive == 2


def test_going_to_sleep_never_waits_for_a_server_that_hangs() -> None:
    world = World(sleeps=True)
    group = world.group
    health = world.run(group.start(), world.inject("0.0", "hangs"), group.sleep())
    assert (health.alive, health.lost_total) == (1, 1)
    assert "1.0 sleep" in world.log


def test_where_memory_is_shared_a_lost_server_is_replaced_when_the_group_goes_to_sleep() -> None:
    world = World(sleeps=True, any_time=False)
    group = world.group
    watched = (group.start(), group.sleep(), group.wake_up(), world.inject("0.0", "dead"))
    assert world.run(*watched, group.check()).alive == 1
    world.run(group.sleep())
    assert world.log.index("0.1 launched") < world.log.index("0.1 sleep")
    assert world.router.known == ["1.0", "0.1"]


def test_a_launch_that_fails_is_tried_again_until_the_limit() -> None:
    world = World()
    group = world.group
    world.broken_launches = 1
    once = world.run(group.start(), world.inject("0.0", "dead"), group.check(), group.restore())
    assert (once.alive, once.restarts_total) == (1, 0)
    twice = world.run(group.restore())
    assert (twice.alive, twice.restarts_total) == (2, 1)
    given_up = world.run(world.inject("0.2", "dead"), group.check(), group.restore())
    assert given_up.alive == 1
    assert "0.3 launched" not in world.log


def test_a_first_launch_that_fails_is_an_error() -> None:
    async def launch(rank: int, launch: int) -> FakeServer:
        raise RuntimeError("no such model")

    group = ReplicaGroup(launch, FakeRouter(), GroupSettings(1, False, False, True))
    with pytest.raises(RuntimeError, match="no such model"):
        asyncio.run(group.start())


def test_all_servers_take_over_new_weights_and_one_that_hangs_is_lost() -> None:
    world = World()
    group = world.group
    health = world.run(group.start(), world.inject("1.0", "hangs"), group.load("average"))
    assert (health.alive, health.lost_total) == (1, 1)
    assert "0.0 load average" in world.log


def test_the_longest_queue_since_the_last_reading_is_reported() -> None:
    world = World()
    group = world.group

    async def loaded(requests: int) -> None:
        world.router.load = requests
        await group.check()

    assert world.run(group.start(), loaded(5), loaded(2)).max_inflight == 5
    assert world.run(loaded(1)).max_inflight == 1


def test_watching_finds_and_replaces_a_dead_server_by_itself() -> None:
    world = World()

    async def scenario() -> None:
        await world.group.start()
        watching = asyncio.create_task(world.group.watch(interval_s=0.001))
        await world.inject("0.0", "dead")
        while "0.1" not in world.router.known:
            await asyncio.sleep(0.001)
        watching.cancel()

    asyncio.run(asyncio.wait_for(scenario(), timeout=5))
    assert world.group.health().restarts_total == 1

"""A group of servers that outlives its members: who is up, who is awake, who must be started again.

Knows neither Ray nor verl: it is given a function to launch a server and a router that requests go
through, and runs in one event loop. Nothing here raises for a server that dies: it is taken out of
the router, so that requests go to the others, and is replaced when there is memory for another.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)


class Server(Protocol):
    """One server of the group. Each method may raise or never return: the server may be dead."""

    address: str

    async def wake_up(self) -> None:
        """Take the GPU memory back."""

    async def sleep(self) -> None:
        """Give the GPU memory up, once all requests are answered."""

    async def interrupt(self) -> None:
        """Give every request back unfinished, and hold new ones."""

    async def go_on(self) -> None:
        """Take requests again."""

    async def load(self, model_path: str) -> None:
        """Take over the weights of another model of the same shape."""

    async def is_healthy(self) -> bool:
        """Whether its engine still works; an engine may die and leave its server behind."""

    async def discard(self) -> None:
        """End its processes, whatever state they are in; never raises."""


S = TypeVar("S", bound=Server)
Contra = TypeVar("Contra", bound=Server, contravariant=True)


class Router(Protocol[Contra]):
    """Distributes requests over the servers it knows."""

    async def add(self, server: Contra) -> None: ...

    async def remove(self, address: str) -> None: ...

    async def inflight(self) -> int:
        """Requests under way at all servers."""


Launch = Callable[[int, int], Awaitable[S]]
"""Starts the server of a rank; the second number counts its launches, from 0."""


@dataclass(frozen=True)
class GroupSettings:
    """How a group replaces servers that fail.

    Attributes:
        size: servers of the whole group.
        sleeps: whether the servers give their memory up while they are not needed.
        interrupts: whether going to sleep interrupts requests rather than wait for them; whoever
            sent one has to send it again.
        restarts_any_time: whether a server may be started while the others, or the actor, hold
            their memory; if not, it is started when the group goes to sleep.
        ping_timeout_s: seconds in which a server answers whether it is healthy.
        missed_pings: unanswered pings in a row after which a server counts as dead.
        call_timeout_s: seconds that waking or going to sleep may take.
        max_launches: launches of one rank, the first included; after the last it stays away.
    """

    size: int
    sleeps: bool
    interrupts: bool
    restarts_any_time: bool
    ping_timeout_s: float = 20.0
    missed_pings: int = 3
    call_timeout_s: float = 300.0
    max_launches: int = 5


@dataclass(frozen=True)
class GroupHealth:
    """What became of the group: servers up now; servers lost and started again since the start;
    most requests under way at one time since the health was last read.
    """

    alive: int
    lost_total: int
    restarts_total: int
    max_inflight: int


@dataclass
class _Slot(Generic[S]):
    rank: int
    server: S | None = None
    launches: int = 0
    missed: int = 0


class ReplicaGroup(Generic[S]):
    """Servers of the ranks 0 … size - 1; all methods belong to one event loop."""

    def __init__(self, launch: Launch[S], router: Router[S], settings: GroupSettings) -> None:
        self._launch_server = launch
        self._router = router
        self._settings = settings
        self._slots: list[_Slot[S]] = [_Slot(rank) for rank in range(settings.size)]
        self._asleep = False
        self._lost_total = 0
        self._restarts_total = 0
        self._max_inflight = 0

    async def start(self) -> None:
        """Launch every server; raises if one does not start."""
        await asyncio.gather(*[self._launch(slot) for slot in self._slots])

    async def wake_up(self) -> None:
        """Wake all servers; one that does not wake is lost."""
        if self._settings.sleeps and self._asleep:
            await self._all(self._wake, "did not wake up")
        self._asleep = False

    async def sleep(self) -> None:
        """Put all servers to sleep, having replaced the lost ones if that had to wait."""
        if not self._settings.sleeps:
            return
        if not self._settings.restarts_any_time:
            await self.restore()
        if not self._asleep:
            await self._all(self._put_to_sleep, "did not go to sleep")
        self._asleep = True

    async def load(self, model_path: str) -> None:
        """Give all servers, which are awake, new weights; one that does not take them is lost."""
        await self._all(lambda server: server.load(model_path), f"did not load {model_path}")

    async def watch(self, interval_s: float) -> None:
        """Look after the servers for good, every so many seconds."""
        while True:
            await asyncio.sleep(interval_s)
            await self.check()
            if self._settings.restarts_any_time:
                await self.restore()

    async def check(self) -> None:
        """Ask each server whether it is well, and lose those that are not."""
        await asyncio.gather(*[self._ping(slot) for slot in self._slots])
        self._max_inflight = max(self._max_inflight, await self._router.inflight())

    async def restore(self) -> None:
        """Start the lost servers again; one that does not start is tried again the next time."""
        lost = [slot for slot in self._slots if slot.server is None]
        due = [slot for slot in lost if slot.launches < self._settings.max_launches]
        await asyncio.gather(*[self._relaunch(slot) for slot in due])

    def health(self) -> GroupHealth:
        """The group's state; starts `max_inflight` anew."""
        alive = sum(slot.server is not None for slot in self._slots)
        inflight, self._max_inflight = self._max_inflight, 0
        return GroupHealth(alive, self._lost_total, self._restarts_total, inflight)

    async def _wake(self, server: S) -> None:
        await server.wake_up()
        if self._settings.interrupts:
            await server.go_on()

    async def _put_to_sleep(self, server: S) -> None:
        if self._settings.interrupts:
            await server.interrupt()
        await server.sleep()

    async def _launch(self, slot: _Slot[S]) -> None:
        slot.launches += 1
        server = await self._launch_server(slot.rank, slot.launches - 1)
        await self._router.add(server)
        slot.server, slot.missed = server, 0

    async def _relaunch(self, slot: _Slot[S]) -> None:
        logger.warning("starting refiner server %d again", slot.rank)
        try:
            await self._launch(slot)
        except Exception:
            # Anything may be wrong with a machine that has just lost one; the training goes on.
            logger.exception(
                "refiner server %d did not start (launch %d of %d)",
                *(slot.rank, slot.launches, self._settings.max_launches),
            )
            return
        self._restarts_total += 1

    async def _all(self, call: Callable[[S], Coroutine[Any, Any, None]], complaint: str) -> None:
        async def guarded(slot: _Slot[S], server: S) -> None:
            try:
                await asyncio.wait_for(call(server), self._settings.call_timeout_s)
            except Exception as error:
                await self._lose(slot, f"{complaint}: {error!r}")

        running = [(slot, slot.server) for slot in self._slots if slot.server is not None]
        await asyncio.gather(*[guarded(slot, server) for slot, server in running])

    async def _ping(self, slot: _Slot[S]) -> None:
        server = slot.server
        if server is None:
            return
        try:
            healthy = await asyncio.wait_for(server.is_healthy(), self._settings.ping_timeout_s)
        except TimeoutError:
            slot.missed += 1
            if slot.missed >= self._settings.missed_pings:
                await self._lose(slot, f"left {slot.missed} pings in a row unanswered")
        except Exception as error:
            await self._lose(slot, f"is dead: {error!r}")
        else:
            slot.missed = 0
            if not healthy:
                await self._lose(slot, "says that its engine is dead")

    async def _lose(self, slot: _Slot[S], reason: str) -> None:
        server = slot.server
        if server is None:
            return
        slot.server = None
        self._lost_total += 1
        logger.error("refiner server %d %s; requests go to the others", slot.rank, reason)
        await self._router.remove(server.address)
        await server.discard()

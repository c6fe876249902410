"""Simulated time, streams that keep their order until they break, and parties that wake up now and then. The seed decides everything."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, Final, cast

from treadle.comm.interface import Buffer, ClosedHandler, Comm, FrameHandler, Introduction, Role

_END: Final = object()


class World:
    """What happens when, and the source of all chance."""

    def __init__(self, seed: int, slowness: float = 1.0, *, logging: bool = False) -> None:
        self.random = random.Random(seed)
        self._slowness = slowness
        self.now = 0.0
        self.steps = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0
        #: Entries of the agenda that are no message on its way.
        self._timers = 0
        #: Whether a line is kept for each thing that happens: the tail of them explains a failure.
        self.logging = logging
        self.log: list[str] = []

    def note(self, line: str) -> None:
        if self.logging:
            self.log.append(f"{self.now * 1000:9.3f} ms  {line}")

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """``act`` is called in so many seconds."""
        self.at(self.now + delay, act)

    def at(self, time: float, act: Callable[[], None]) -> None:
        """``act`` is called at that time, behind what was to happen then before."""
        self._entries += 1
        heappush(self._agenda, (time, self._entries, act))

    def timer(self, delay: float, act: Callable[[], None]) -> None:
        """As ``later``, for what is no message and no turn of a party: a task that ends, a look at a clock."""
        self._timers += 1

        def ring() -> None:
            self._timers -= 1
            act()

        self.later(delay, ring)

    @property
    def is_quiet(self) -> bool:
        """No message is on its way, and nobody has one that it has not handled."""
        return len(self._agenda) == self._timers

    def latency(self) -> float:
        """Seconds that a message takes: mostly little, sometimes long enough for everything else to overtake it."""
        chance = self.random.random
        kind = chance()
        if kind < 0.7:
            return self._slowness * (0.0001 + 0.0004 * chance())
        return self._slowness * (0.0005 + 0.0045 * chance() if kind < 0.95 else 0.005 + 0.045 * chance())

    def run(self, most_steps: int, until: float = float("inf"), *, until_quiet: bool = False) -> None:
        """Until nothing is left to happen, or nothing before that time; or until it is quiet.

        Raises AssertionError when it takes too many steps: something goes round in circles.
        """
        agenda = self._agenda
        last = self.steps + most_steps
        while agenda and agenda[0][0] <= until and not (until_quiet and self.is_quiet):
            self.now, _, act = heappop(agenda)
            act()
            self.steps += 1
            assert self.steps < last, f"still busy after {most_steps} steps"


class Stream:
    """One direction of a connection: ordered, until it breaks. ``receive`` gets what was sent, ``ended`` hears once of the end."""

    def __init__(self, world: World, receive: Callable[[Any], None], ended: Callable[[], None]) -> None:
        self._world = world
        self._receive = receive
        self._ended = ended
        self._last = 0.0
        self._queue: deque[Any] = deque()
        #: The sender can still send; the receiver still listens.
        self.open = True
        self.heard = True

    def send(self, payload: Any) -> None:
        """Lost when the stream is broken, or breaks while it is on its way."""
        if self.open:
            self._put(payload, 0.0)

    def _put(self, payload: Any, delay: float) -> None:
        world = self._world
        arrival = max(self._last, world.now + delay + world.latency())
        self._last = arrival
        self._queue.append(payload)
        world.at(arrival, self._deliver)

    def _deliver(self) -> None:
        if not self._queue or not self.heard:
            return
        payload = self._queue.popleft()
        if payload is _END:
            self.heard = False
            self._ended()
        else:
            self._receive(payload)

    def end(self, after: float = 0.0, *, lose: bool = False) -> None:
        """Nothing more is sent; the receiver hears of the end that much later. ``lose``: what is on its way does not arrive."""
        if lose:
            had_end = bool(self._queue) and self._queue[-1] is _END
            self._queue.clear()
            if had_end:
                self.open = True
        if self.open:
            self.open = False
            self._put(_END, after)

    def ignore(self) -> None:
        """The receiver has closed it: nothing is heard any more, not even the end."""
        self.open = self.heard = False
        self._queue.clear()

    def hold(self, seconds: float) -> None:
        """What is sent from here on takes at least that long."""
        self._last = max(self._last, self._world.now + seconds)


class Connection:
    """A party's stream to a scheduler and back. The party's end; the scheduler's is ``comm``."""

    def __init__(self, world: World, name: str, role: Role, receive: Callable[[Any], None], ended: Callable[[], None]) -> None:
        self.name = name
        self.comm = _SchedulersEnd(world, self, name, role)
        self.outward = Stream(world, receive, ended)
        self.inward = Stream(world, self.comm.frame_came, self.comm.end_came)

    def send(self, body: bytes) -> None:
        self.inward.send(body)

    def close(self) -> None:
        """The party closes it: what it has sent arrives."""
        self.outward.ignore()
        self.inward.end()

    def break_(self, chance: random.Random) -> None:
        """At once for both, or for one of them later; with or without what is on its way."""
        for stream in (self.inward, self.outward):
            stream.end(chance.choice((0.0, 0.001, 0.02, 0.2)), lose=chance.random() < 0.5)

    def break_one_way(self, chance: random.Random) -> None:
        """One direction is dead at once, the other one works for a while."""
        dead, alive = chance.sample((self.inward, self.outward), 2)
        after = chance.choice((0.005, 0.05, 0.3))
        dead.end(after, lose=True)
        self.inward._world.later(after, alive.end)

    def hold(self, seconds: float) -> None:
        self.inward.hold(seconds)
        self.outward.hold(seconds)


class _SchedulersEnd(Comm):
    """What the sessions of a scheduler know of a connection."""

    def __init__(self, world: World, connection: Connection, name: str, role: Role) -> None:
        self._world = world
        self._connection = connection
        self.local_address = "sim://scheduler"
        self.peer_address = f"sim://{name}"
        self.peer = Introduction(role, b"")
        self._closed = False
        self._on_frame: FrameHandler = lambda body, buffers: None
        self._on_closed: ClosedHandler = lambda error: None

    def start(self, on_frame: FrameHandler, on_closed: ClosedHandler) -> None:
        self._on_frame = on_frame
        self._on_closed = on_closed

    def frame_came(self, body: bytes) -> None:
        self._on_frame(body, [])

    def end_came(self) -> None:
        self._closed = True
        self._connection.outward.end()
        self._on_closed(ConnectionResetError("it ended"))

    def send(self, body: Buffer, buffers: Sequence[Buffer] = ()) -> None:
        assert not buffers, "no buffers travel in simulations"
        self._connection.outward.send(body)

    def abort(self) -> None:
        """After what was sent, which arrives."""
        if not self._closed:
            self._closed = True
            self._connection.inward.ignore()
            self._connection.outward.end()
            self._world.later(0.0, lambda: self._on_closed(None))

    def vanish(self, chance: random.Random) -> None:
        """The scheduler dies."""
        self._closed = True
        self._connection.inward.ignore()
        self._connection.outward.end(chance.choice((0.0, 0.001, 0.02)), lose=chance.random() < 0.5)

    @property
    def unsent_bytes(self) -> int:
        return 0

    async def drained(self, below_bytes: int = 0) -> None:
        return

    def pause(self) -> None:
        raise NotImplementedError("nobody pauses simulated streams")

    def resume(self) -> None:
        raise NotImplementedError("nobody pauses simulated streams")

    @property
    def closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        self.abort()


class SimulatedLoop:
    """As much of an event loop as the parts of a scheduler need that are driven here: callbacks in order, and a clock that may jump."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last = 0.0
        self._callbacks: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self.jumped_s = 0.0
        self.stopped = False

    def time(self) -> float:
        return self._world.now + self.jumped_s

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """A little later, behind what was asked for before."""
        world = self._world
        self._last = max(self._last, world.now + world.random.choice((0.0, 0.0, 0.0002, 0.002)))
        self._callbacks.append((callback, args))
        world.at(self._last, self._run_one)

    call_soon_threadsafe = call_soon

    def _run_one(self) -> None:
        callback, args = self._callbacks.popleft()
        if not self.stopped:
            callback(*args)

    def as_loop(self) -> asyncio.AbstractEventLoop:
        return cast(asyncio.AbstractEventLoop, self)


class Mailbox:
    """Gathers what arrives and hands it over a little later, all at once: the turn of a party."""

    def __init__(self, world: World, take: Callable[[list[Any]], None]) -> None:
        self._world = world
        self._take = take
        self._items: list[Any] = []
        self._due = False
        self.open = True

    def add(self, item: Any) -> None:
        self._items.append(item)
        if not self._due:
            self._due = True
            self._world.later(self._world.random.choice((0.0, 0.0, 0.0002, 0.002)), self.flush)

    def flush(self) -> None:
        """The turn is now."""
        self._due = False
        items, self._items = self._items, []
        if self.open and items:
            self._take(items)

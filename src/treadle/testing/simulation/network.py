"""Simulated time, streams that keep their order, and parties that wake up now and then. No I/O; the seed decides everything."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class World:
    """What happens when, and the source of all chance."""

    def __init__(self, seed: int, slowness: float = 1.0) -> None:
        self.random = random.Random(seed)
        self._slowness = slowness
        self.now = 0.0
        self.steps = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0
        #: A line for each thing that happened; the tail of it explains a failure.
        self.log: list[str] = []

    def note(self, line: str) -> None:
        self.log.append(f"{self.now * 1000:9.3f} ms  {line}")

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """``act`` is called in so many seconds."""
        self.at(self.now + delay, act)

    def at(self, time: float, act: Callable[[], None]) -> None:
        """``act`` is called at that time, behind what was to happen then before."""
        self._entries += 1
        heappush(self._agenda, (time, self._entries, act))

    def latency(self) -> float:
        """Seconds that a message takes: mostly little, sometimes long enough for everything else to overtake it."""
        chance = self.random.random()
        if chance < 0.7:
            return self._slowness * self.random.uniform(0.0001, 0.0005)
        return self._slowness * (self.random.uniform(0.0005, 0.005) if chance < 0.95 else self.random.uniform(0.005, 0.05))

    def run(self, most_steps: int) -> None:
        """Until nothing is left to happen. Raises AssertionError when that takes too many steps: something goes round in circles."""
        while self._agenda:
            self.now, _, act = heappop(self._agenda)
            act()
            self.steps += 1
            assert self.steps < most_steps, f"still busy after {most_steps} steps"


class Stream:
    """One direction of a connection: ordered, until it is cut. ``receive`` gets what was sent."""

    def __init__(self, world: World, receive: Callable[[Any], None]) -> None:
        self._world = world
        self._receive = receive
        self._last = 0.0
        self.open = True

    def send(self, payload: Any) -> None:
        """Dropped when the stream was cut, before or on the way."""
        if not self.open:
            return
        arrival = max(self._last, self._world.now + self._world.latency())
        self._last = arrival
        self._world.at(arrival, lambda: self._deliver(payload))

    def _deliver(self, payload: Any) -> None:
        if self.open:
            self._receive(payload)

    def cut(self) -> None:
        """Nothing arrives any more, not even what is on its way."""
        self.open = False


class Mailbox:
    """Gathers what arrives and hands it over a little later, all at once: the turn of a server."""

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
            self._world.later(self._world.random.choice((0.0, 0.0, 0.0002, 0.002)), self._turn)

    def flush(self) -> None:
        """The turn is now."""
        self._turn()

    def _turn(self) -> None:
        self._due = False
        items, self._items = self._items, []
        if self.open and items:
            self._take(items)

"""A simulated cluster: the scheduler's real core, its streams, and the faults that happen to the parties."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from treadle.exceptions import Reschedule
from treadle.messages.codec import decode_client_to_scheduler, decode_worker_to_scheduler, encode
from treadle.messages.scheduler_local import ConnectionLost, Forget, Tick
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.transitions.state import Limits
from treadle.testing.simulation.client import SimulatedClient
from treadle.testing.simulation.functions import Injected
from treadle.testing.simulation.graphs import Universe
from treadle.testing.simulation.network import Mailbox, Stream, World
from treadle.testing.simulation.scenario import Scenario
from treadle.testing.simulation.worker import SimulatedWorker


class _Session:
    """A party as the scheduler sees it: a number, and a stream each way."""

    def __init__(self, number: int, name: str, outward: Stream, inward: Stream) -> None:
        self.number = number
        self.name = name
        self.outward = outward
        self.inward = inward
        #: The scheduler has heard, or will hear, that it has ended.
        self.end_told = False


class Cluster:
    """Everything of one simulation. The acts of clients are in ``trial``."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World(scenario.seed, scenario.slowness)
        chance = self.world.random
        self.universe = Universe(chance, scenario.tasks, scenario.shape, scenario.broken_share, scenario.scattered)
        limits = Limits(
            validate=True,
            allowed_failures=scenario.allowed_failures,
            worker_saturation=scenario.saturation,
            prefetch_time_s=scenario.prefetch_time_s,
            worker_grace_s=scenario.grace_s,
            client_grace_s=scenario.grace_s,
            recovery_grace_s=scenario.grace_s,
        )
        self.core = Transitions(limits, "the scheduler")
        self.sessions: dict[int, _Session] = {}
        self.number_of: dict[Any, int] = {}
        #: Living workers by name, all that ever lived by address; clients that have not left, and all.
        self.workers: dict[str, SimulatedWorker] = {}
        self.by_address: dict[str, SimulatedWorker] = {}
        self.clients: list[SimulatedClient] = []
        self.everybody: list[SimulatedClient] = []
        #: key -> how often it will still fail.
        self.failures_left = {key: chance.randint(1, 2) for key in self.universe.keys if chance.random() < scenario.flaky_share}
        self.flaky = set(self.failures_left)
        #: Of what happened: whatever may explain an outcome.
        self.forced: set[Any] = set()
        self.scattered: set[Any] = set()
        self.killed = 0
        self.data_lost = 0
        self.cuts = 0
        self.restarted = False
        self._mailbox = Mailbox(self.world, self._take)
        self._numbers = 0
        self._lives = 0

    # ----------------------------------------------------------------------------------------------- scheduler

    def _connect(
        self, name: str, decode: Callable[[bytes], list[Any]], receive: Callable[[bytes], None], number: int = 0
    ) -> _Session:
        """``number``: of a party that comes back."""
        if number == 0:
            self._numbers += 1
            number = self._numbers

        def arrive(body: bytes | None) -> None:
            if body is None:
                session.end_told = True
                self._mailbox.add(Event(number, ConnectionLost()))
                return
            for message in decode(body):
                self._mailbox.add(Event(number, message))

        session = _Session(number, name, Stream(self.world, receive), Stream(self.world, arrive))
        self.sessions[number] = session
        return session

    def _take(self, events: list[Event]) -> None:
        """One turn of the scheduler."""
        for event in events:
            self.world.note(f"{self._name(event.session)} -> scheduler: {_cut(event.message)}")
        turned = self.core.handle(events, self.world.now)
        for number, messages, frames in turned.sends:
            assert not frames, "no buffers travel in simulations"
            session = self.sessions.get(number)
            for message in messages:
                self.world.note(f"scheduler -> {self._name(number)}: {_cut(message)}")
            if session is not None:
                session.outward.send(encode(messages))
        for number, why in turned.closes:
            self.world.note(f"scheduler closes {self._name(number)}: {why}")
            session = self.sessions.pop(number, None)
            if session is not None:
                assert why in ("refused", "the client left"), f"{session.name} was closed: {why}"
                session.inward.cut()

    def _name(self, number: int) -> str:
        session = self.sessions.get(number)
        return f"{session.name} ({number})" if session is not None else f"({number})"

    def tell(self, message: Any) -> None:
        """A local event happens to the scheduler."""
        self._mailbox.add(Event(0, message))

    def tick(self) -> None:
        self.tell(Tick())

    def forget_everything(self) -> None:
        self.restarted = True
        self.world.note("everything is forgotten")
        self.tell(Forget("scheduler-restart"))

    # ------------------------------------------------------------------------------------------ broken streams

    def cut(self, party: SimulatedWorker | SimulatedClient) -> None:
        """Its stream breaks, with or without what is on its way to the scheduler; a while later it has another one."""
        chance = self.world.random
        self.world.note(f"the stream of {party.name} breaks")
        session = self.sessions[party.number]
        party.cut()
        session.outward.cut()
        if chance.random() < 0.5:
            session.inward.send(None)
        else:
            session.inward.cut()
            if chance.random() < 0.7:
                # Else the scheduler hears of it when the party is back.
                session.end_told = True
                self._mailbox.add(Event(party.number, ConnectionLost()))
        self.cuts += 1
        self.world.later(chance.choice((0.0, 0.001, 0.01, 0.05)), lambda: self._reconnect(party, session))

    def _reconnect(self, party: SimulatedWorker | SimulatedClient, before: _Session) -> None:
        gone = not party.alive if isinstance(party, SimulatedWorker) else party.gone
        before.inward.cut()
        if not before.end_told:
            self._mailbox.add(Event(before.number, ConnectionLost()))
        if gone:
            return
        # Whoever is known keeps its number; a client that is not, too: it is free then.
        self._mailbox.flush()
        self.world.note(f"{party.name} comes back")
        if isinstance(party, SimulatedWorker):
            known = party.id in self.core.state.by_worker_id
            session = self._connect(party.name, decode_worker_to_scheduler, party.receive, party.number if known else 0)
            party.number = session.number
        else:
            session = self._connect(party.name, decode_client_to_scheduler, party.receive, party.number)
        party.come_back(session.inward.send)

    # ----------------------------------------------------------------------------------------------- workers

    def start_worker(self, name: str) -> None:
        """A new life of that name; tried again while the scheduler has not noticed the death of the one before."""
        self._lives += 1
        resources = {"slot": 1.0} if name.endswith(("0", "3")) else {}
        worker = SimulatedWorker(
            self.world, name, f"tcp://host-of-{name}:{self._lives}", self.scenario.nthreads, resources, self.by_address, self._fate
        )
        session = self._connect(name, decode_worker_to_scheduler, worker.receive)
        worker.to_scheduler = session.inward.send
        worker.number = session.number
        worker.on_refused = lambda: self.world.later(0.05, lambda: self.start_worker(name))
        worker.register()
        self.workers[name] = worker
        self.by_address[worker.address] = worker

    def registered_workers(self) -> list[SimulatedWorker]:
        """Those that the scheduler knows, and that are connected."""
        return [
            worker
            for worker in self.workers.values()
            if worker.alive and worker.connected and worker.number in self.core.state.by_number
        ]

    def kill_worker(self, worker: SimulatedWorker, back_after: float) -> None:
        """It dies; what it has said last may or may not arrive. Another one comes with its name."""
        self.killed += 1
        self.world.note(f"{worker.name} dies")
        worker.die()
        session = self.sessions[worker.number]
        session.outward.cut()
        if self.world.random.random() < 0.5:
            session.inward.cut()
            self.world.later(self.world.latency(), lambda: self._mailbox.add(Event(worker.number, ConnectionLost())))
        else:
            session.inward.send(None)
        self.world.later(back_after, lambda: self.start_worker(worker.name))

    def _fate(self, key: Any) -> None:
        if self.world.random.random() < self.scenario.reschedule_share:
            raise Reschedule
        left = self.failures_left.get(key, 0)
        if left:
            self.failures_left[key] = left - 1
            raise Injected(f"{key!r} fails {left} more times")

    # ----------------------------------------------------------------------------------------------- clients

    def start_client(self, name: str) -> SimulatedClient:
        client = SimulatedClient(self.world, name, self.universe)
        session = self._connect(name, decode_client_to_scheduler, client.receive)
        client.to_scheduler = session.inward.send
        client.register()
        self.number_of[client] = session.number
        self.clients.append(client)
        self.everybody.append(client)
        return client

    def lose_client(self, client: SimulatedClient, politely: bool) -> None:
        self.world.note(f"{client.name} {'leaves' if politely else 'vanishes'}")
        self.clients.remove(client)
        session = self.sessions[self.number_of[client]]
        session.outward.cut()
        if politely and client.connected:
            client.leave()
        else:
            client.vanish()
            session.inward.send(None)


_BYTES = re.compile(r"b'(\\.|[^'\\])*'|b\"(\\.|[^\"\\])*\"")


def _cut(message: Any) -> str:
    """Without pickles: these say nothing to people, and depend on the order of sets."""
    text = _BYTES.sub("...", repr(message))
    return text if len(text) < 400 else text[:400] + "..."

"""A simulated worker: the real core, and an executor, a store and transfers that exist in simulated time only."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from treadle.exceptions import Reschedule
from treadle.messages.base import WorkerIdentity
from treadle.messages.codec import decode_scheduler_to_worker, encode
from treadle.messages.local import (
    DataLost,
    DataPut,
    Execute,
    ExecutionFailed,
    ExecutionRescheduled,
    ExecutionsDone,
    ExecutionsSeceded,
    ExecutionsStarted,
    ExecutionUnready,
    Fetch,
    FetchBusy,
    FetchDone,
    FetchFailed,
    Paused,
    TakeBackDone,
    Tick,
)
from treadle.messages.worker_scheduler import (
    CloseWorker,
    LearnFunctions,
    LeaveWorker,
    RegisterWorker,
    UnlearnFunctions,
    WorkerRefused,
    WorkerWelcome,
)
from treadle.serialize.errors import dump_error
from treadle.serialize.spec import call_with, load_node, loads_function
from treadle.testing.simulation.network import Connection, Mailbox, World
from treadle.worker.data.store import Store
from treadle.worker.transitions.machine import WorkerTransitions

#: What a key is told to do before it is called: raises to inject a failure.
Fate = Callable[[Any], None]


class SimulatedWorker:
    """One life of a worker, from its registration to its death."""

    def __init__(
        self,
        world: World,
        name: str,
        address: str,
        nthreads: int,
        resources: dict[str, float],
        cluster: dict[str, SimulatedWorker],
        fate: Fate,
        duration_s: float,
        pid: int,
        nanny: str | None,
        validate: bool,
    ) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.host = f"host-of-{name}"
        self.nthreads = nthreads
        self.resources = resources
        self.core = WorkerTransitions(
            f"host-of-{name}", resources, max_outgoing=2, max_request_bytes=100, validate=validate, fetch_budget_bytes=150
        )
        self.store: dict[Any, Any] = {}
        self._store = Store(self.store)
        self.functions: dict[int, Any] = {}
        self.alive = True
        self.id = f"{name} at {address}"
        self.pid = pid
        self.nanny = nanny
        #: How long its tasks take, seconds on average.
        self.duration_s = duration_s
        #: Its stream, once it has one; and whether the scheduler at the other end has welcomed it.
        self.connection: Connection | None = None
        self.welcomed = False
        #: Its session at the scheduler; 0 before it was welcomed for the first time.
        self.number = 0
        #: Set by who has started it: called when it ends by itself.
        self.on_end: Callable[[], None] = lambda: None
        #: What its clock is ahead of the world's.
        self.jumped_s = 0.0
        self._cluster = cluster
        self._fate = fate
        self._mailbox = Mailbox(world, self._take)
        #: Heap of what the executor may start (may hold rows that were taken back), and what of it counts, by id.
        self._ready: list[tuple[Any, int, Execute]] = []
        self._held: dict[int, Execute] = {}
        self._turns = 0
        #: When it will look at the clock.
        self._wake_at = 0.0
        #: id -> attempt.
        self.running: dict[int, int] = {}
        self._threads_used = 0
        self._slow = world.random.random() < 0.2

    @property
    def connected(self) -> bool:
        return self.alive and self.welcomed

    def now(self) -> float:
        return self.world.now + self.jumped_s

    # ------------------------------------------------------------------------------------------------ arrivals

    def register(self, connection: Connection) -> None:
        """For the first time, or again: then it says what is here."""
        inventory = None
        if self.number:
            self._mailbox.flush()
            if not self.alive:
                connection.close()
                return
            self._perform([ExecutionsStarted(list(self.running))])
            inventory = self.core.inventory(self.now())
            inventory.functions = list(self.functions)
        self.connection = connection
        connection.send(
            encode(
                [
                    RegisterWorker(
                        WorkerIdentity(
                            self.id, self.address, self.name, self.host, self.nthreads, 0, self.resources, self.pid, "/", {}, self.nanny
                        ),
                        inventory,
                    )
                ]
            )
        )

    def lose_connection(self) -> None:
        """The stream is broken, what came on it counts; tasks go on."""
        self._mailbox.flush()
        self.connection = None
        self.welcomed = False

    def _to_scheduler(self, body: bytes) -> None:
        if self.connection is not None:
            self.connection.send(body)

    def receive(self, body: bytes) -> None:
        """A frame of the scheduler."""
        for message in decode_scheduler_to_worker(body):
            self._mailbox.add(message)

    def say(self, event: Any) -> None:
        """A local event."""
        if self.alive:
            self._mailbox.add(event)

    def die(self) -> None:
        self.alive = False
        self._mailbox.open = False

    def _end(self) -> None:
        """It closes in peace."""
        self.die()
        if self.connection is not None:
            self.connection.close()
        self.on_end()

    def _take(self, items: list[Any]) -> None:
        """One turn."""
        events: list[object] = []
        for item in items:
            if isinstance(item, LearnFunctions):
                for id, body in zip(item.ids, item.bodies, strict=True):
                    assert id not in self.functions, f"{self.name} was sent function {id} twice"
                    self.functions[id] = loads_function(body)
            elif isinstance(item, UnlearnFunctions):
                for id in item.ids:
                    del self.functions[id]
            elif isinstance(item, WorkerRefused):
                self._end()
                return
            elif isinstance(item, CloseWorker):
                self._to_scheduler(encode([LeaveWorker(item.reason)]))
                self._end()
                return
            elif isinstance(item, _Asked):
                item.answer(self)
            else:
                if isinstance(item, WorkerWelcome):
                    self.number = item.number
                    self.welcomed = True
                events.append(item)
        if events:
            self._perform(events)

    def _perform(self, events: list[object]) -> None:
        """Hand the events to the core, and do what it says."""
        out = self.core.handle(events, self.now())
        self._store.drop_all(out.drop)
        self._store.put_all(out.store.values())
        messages = out.messages()
        if messages:
            self._to_scheduler(encode(messages))
        for spec in out.execute:
            assert spec.id not in self._held and spec.id not in self.running, f"{spec.key!r} is executed twice at once on {self.name}"
            self._turns += 1
            heappush(self._ready, (spec.priority, self._turns, spec))
            self._held[spec.id] = spec
        for fetch in out.fetch:
            self._fetch(fetch)
        if out.wake_at and (self._wake_at <= self.now() or out.wake_at < self._wake_at):
            self._wake_at = out.wake_at
            self.world.timer(max(0.0, out.wake_at - self.now()), lambda: self.say(Tick()))
        if out.take_back:
            taken = [id for id in dict.fromkeys(out.take_back) if id in self._held]
            kept = [id for id in dict.fromkeys(out.take_back) if id not in self._held]
            for id in taken:
                del self._held[id]
            self._perform([TakeBackDone(taken, kept)])
        self._start()

    # ----------------------------------------------------------------------------------------------- executing

    def _start(self) -> None:
        """Free threads take the most urgent of what is ready."""
        while self._ready and self._threads_used < self.nthreads:
            spec = heappop(self._ready)[2]
            id = spec.id
            if self._held.get(id) is not spec:
                # Taken back.
                continue
            del self._held[id]
            missing = [key for key in spec.dependencies or () if key not in self.store]
            if missing:
                self.say(ExecutionUnready(id))
                continue
            self.running[id] = spec.attempt
            self._threads_used += 1
            self._execute(spec)

    def _execute(self, spec: Execute) -> None:
        chance = self.world.random
        duration = chance.expovariate(1 / (10 * self.duration_s if self._slow else self.duration_s))
        start = self.world.now
        values = {key: self.store[key] for key in spec.dependencies or ()}
        function = self.functions[spec.function] if spec.function else None
        seceded = [False]

        def started() -> None:
            if spec.id in self.running:
                self.say(ExecutionsStarted([spec.id]))

        def secede() -> None:
            if spec.id in self.running:
                seceded[0] = True
                self._threads_used -= 1
                self.say(ExecutionsSeceded([spec.id]))
                self._start()

        def stop() -> None:
            self.running.pop(spec.id, None)
            if not seceded[0]:
                self._threads_used -= 1
            self.say(self._outcome(spec, function, values, start))
            if self.alive:
                self._start()

        if duration > 0.01:
            self.world.timer(0.005, started)
            if chance.random() < 0.2:
                self.world.timer(0.008, secede)
        self.world.timer(duration, stop)

    def _outcome(self, spec: Execute, function: Any, values: dict[Any, Any], start: float) -> Any:
        """What calling it comes to: nothing is simulated about that."""
        try:
            self._fate(spec.key)
            if function is not None:
                value = call_with(function, spec.payload, (), list(values.values()))
            else:
                value = load_node(spec.payload, ())(values)
        except Reschedule:
            return ExecutionRescheduled(spec.id)
        except Exception as error:
            return ExecutionFailed(spec.id, dump_error(error), start, self.world.now)
        return ExecutionsDone([spec.id], [value], [self.world.random.choice((8, 28, 60))], ["int"], [start], [self.world.now])

    # ---------------------------------------------------------------------------------------------- transfers

    def _fetch(self, fetch: Fetch) -> None:
        world = self.world
        peer = self._cluster.get(fetch.address)
        if peer is None or not peer.alive:
            world.later(world.latency(), lambda: self.say(FetchFailed(fetch.peer, fetch.ids)))
            return
        asked = _Asked(self, fetch)
        world.later(world.latency(), lambda: asked.arrive(peer))

    def put(self, id: int, key: Any, value: Any, answer: Callable[[bool], None]) -> None:
        """A client hands over a value; ``answer`` is told whether it was stored."""

        def arrive() -> None:
            stored = self.alive
            if stored:
                self._perform([DataPut([id], [key], [value], [28], ["int"])])
            self.world.later(self.world.latency(), lambda: answer(stored))

        self.world.later(self.world.latency(), arrive)

    def pause(self, paused: bool) -> None:
        self.say(Paused(paused))

    def lose_some_data(self, known: set[Any]) -> None:
        """The disk was bad. ``known``: keys that the scheduler knows to be here."""
        tasks = [task for task in self.core.state.tasks.values() if task.key in known and self.core.stored_key(task.id) is not None]
        if tasks:
            lost = self.world.random.choice(tasks).key
            alike = [task.id for task in tasks if task.key == lost]
            # Of those that were put twice the scheduler may not know both yet.
            if lost in self.store and len(alike) == 1:
                del self.store[lost]
                self.say(DataLost(alike))

    def left_over(self) -> dict[str, Any]:
        """What is still here that should not be, when nobody wants anything any more."""
        left: dict[str, Any] = {
            "tasks": list(self.core.state.tasks.values()),
            "data": list(self.store),
            "running": list(self.running),
            "ready": list(self._held),
            "functions": list(self.functions),
            "bytes": self.core.state.stored_bytes,
            "requests": self.core.state.outgoing,
            "held resources": [name for name, free in self.core.state.available.items() if abs(free - self.resources[name]) > 1e-6],
            "taken places": self._threads_used,
        }
        return {what: some for what, some in left.items() if some}


class _Asked:
    """A request for values, on its way to a peer and back."""

    def __init__(self, asker: SimulatedWorker, fetch: Fetch) -> None:
        self.asker = asker
        self.fetch = fetch

    def arrive(self, peer: SimulatedWorker) -> None:
        if not peer.alive:
            self.asker.say(FetchFailed(self.fetch.peer, self.fetch.ids))
            return
        peer._mailbox.add(self)
        peer.world.timer(0.1, lambda: self._give_up(peer))

    def _give_up(self, peer: SimulatedWorker) -> None:
        """The connection breaks when the peer died before it had answered."""
        if not peer.alive and self.fetch.ids:
            ids, self.fetch.ids = self.fetch.ids, []
            self.asker.say(FetchFailed(self.fetch.peer, ids))

    def answer(self, peer: SimulatedWorker) -> None:
        world, number, asked = peer.world, self.fetch.peer, self.fetch.ids
        self.fetch.ids = []
        if world.random.random() < 0.05:
            busy = FetchBusy(number, asked)
            world.later(world.latency(), lambda: self.asker.say(busy))
            return
        done = FetchDone(number, asked, [], [], [], [], [], [])
        for position, id in enumerate(asked):
            if position and world.random.random() < 0.05:
                # It answers with a part only, and is asked again for the rest.
                break
            stored = peer.core.stored_key(id)
            if stored is None or stored[0] not in peer.store:
                done.missing.append(id)
                continue
            key, nbytes = stored
            done.ids.append(id)
            done.values.append(pickle.loads(pickle.dumps(peer.store[key])))
            done.nbytes.append(nbytes)
            done.types.append("int")
        world.later(world.latency(), lambda: self.asker.say(done))

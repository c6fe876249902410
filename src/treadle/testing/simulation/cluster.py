"""A simulated cluster: a scheduler that may be replaced, workers, clients, a disk, and the faults that happen to them."""

from __future__ import annotations

from random import Random
from typing import Any

from treadle.comm.interface import Role
from treadle.exceptions import JournalError, Reschedule
from treadle.messages.nanny import WorkerDied
from treadle.messages.scheduler_local import Forget
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.state import Limits
from treadle.testing.simulation.client import SimulatedClient
from treadle.testing.simulation.disk import Disk
from treadle.testing.simulation.functions import Injected
from treadle.testing.simulation.graphs import Universe
from treadle.testing.simulation.network import Connection, World
from treadle.testing.simulation.scenario import Scenario
from treadle.testing.simulation.scheduler import SimulatedScheduler, decoded, in_short
from treadle.testing.simulation.worker import SimulatedWorker

Party = SimulatedWorker | SimulatedClient


class Cluster:
    """Everything of one simulation. What is done with it is in ``trial``."""

    def __init__(self, scenario: Scenario, *, logging: bool = False, validate_every: int | None = None) -> None:
        self.scenario = scenario
        self.world = World(scenario.seed, scenario.slowness, logging=logging)
        self._validate_every = validate_every if validate_every is not None else 1 if scenario.tasks <= 20 else 4
        chance = self.world.random
        self.universe = Universe(chance, scenario.tasks, scenario.shape, scenario.broken_share, scenario.scattered)
        self.disk = Disk(self.world) if scenario.journal else None
        #: None while there is none.
        self.scheduler: SimulatedScheduler | None = None
        self._schedulers = 0
        #: Chance of its own, so that scenarios with growing numbers are what they always were.
        self._numbers = Random(f"numbers {scenario.seed}") if scenario.drawn else None
        self._incarnations: set[int] = set()
        #: The core of the last scheduler.
        self.core: Transitions
        #: Until then schedulers look at their clocks.
        self.tick_until = 0.0
        #: Living workers by name, all that ever lived by address; clients that have not left, and all.
        self.workers: dict[str, SimulatedWorker] = {}
        self.by_address: dict[str, SimulatedWorker] = {}
        self.clients: list[SimulatedClient] = []
        self.everybody: list[SimulatedClient] = []
        self._lives = 0
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
        #: Schedulers that were killed; those of them that left nothing behind.
        self.schedulers_killed = 0
        self.replaced = 0
        self.clients_killed = 0
        self.retirements = 0
        #: Whether the clock of a scheduler has gone forward at once, and that of a worker.
        self.jumped = False
        self.suspended = False
        self.start_scheduler()

    # ----------------------------------------------------------------------------------------------- scheduler

    def start_scheduler(self) -> None:
        """At the address of the one before. Tried again while the disk is full."""
        scenario = self.scenario
        limits = Limits(
            allowed_failures=scenario.allowed_failures,
            worker_saturation=scenario.saturation,
            prefetch_time_s=scenario.prefetch_time_s,
            worker_grace_s=scenario.grace_s,
            client_grace_s=scenario.grace_s,
            recovery_grace_s=scenario.recovery_grace_s,
            scatter_replicas=scenario.scatter_replicas,
        )
        self._schedulers += 1
        incarnation, first_attempt = self._draw_numbers()
        try:
            self.scheduler = SimulatedScheduler(
                self.world,
                limits,
                incarnation,
                first_attempt,
                self.disk,
                scenario.compaction_bytes,
                self._validate_every,
                lambda: self.world.now < self.tick_until,
            )
        except JournalError as error:
            assert self.disk is not None and self.disk.full, error
            self.world.later(0.1, self.start_scheduler)
            return
        self._incarnations.add(incarnation)
        self.core = self.scheduler.core
        self.world.note(f"scheduler {self._schedulers} starts")

    def _draw_numbers(self) -> tuple[int, int]:
        """Incarnation, and the first attempt, of the next scheduler."""
        if self._numbers is None:
            return self._schedulers, (self._schedulers - 1) << 6
        # Of few, so that neighbours are met. That two schedulers in a row draw the same out of thousands is left out.
        incarnation = self._numbers.choice([number for number in range(1, 20) if number not in self._incarnations])
        return incarnation, self._numbers.randrange(12) << 6

    def kill_scheduler(self, chance: Random, down_s: float) -> None:
        if self.scheduler is None:
            return
        self.schedulers_killed += 1
        self.world.note("the scheduler dies")
        self.scheduler.kill(chance)
        self.scheduler = None
        if self.disk is not None:
            self.disk.crash(chance)
        else:
            self.replaced += 1
        self.world.later(down_s, self.start_scheduler)

    def forget_everything(self) -> None:
        if self.scheduler is not None:
            self.restarted = True
            self.world.note("everything is forgotten")
            self.scheduler.tell(Forget("scheduler-restart"))

    # --------------------------------------------------------------------------------------------- connections

    def _connect(self, party: Party) -> Connection | None:
        """A stream to the scheduler; None when there is none."""
        if self.scheduler is None:
            return None
        is_worker = isinstance(party, SimulatedWorker)
        role = Role.WORKER if is_worker else Role.CLIENT

        def receive(body: bytes) -> None:
            if party.connection is connection:
                if self.world.logging:
                    for message in decoded(role, body):
                        self.world.note(f"scheduler -> {party.name}: {in_short(message)}")
                party.receive(body)

        def ended() -> None:
            connection.close()
            if party.connection is connection and self._is_there(party):
                self._lose(party)

        connection = Connection(self.world, party.name, role, receive, ended)
        self.scheduler.accept(connection)
        return connection

    @staticmethod
    def _is_there(party: Party) -> bool:
        return party.alive if isinstance(party, SimulatedWorker) else not party.gone

    def _lose(self, party: Party) -> None:
        """It has noticed that its stream is broken."""
        self.world.note(f"{party.name} has lost its stream")
        party.lose_connection()
        if not self._is_there(party):
            # The last that it heard was that it shall end.
            return
        if party.number == 0:
            # It had not even been welcomed: it gives up, and another one tries.
            if isinstance(party, SimulatedWorker):
                party.die()
                self.world.later(0.02, lambda: self.start_worker(party.name))
            else:
                party.vanish()
                self.clients.remove(party)
                self.world.later(0.02, lambda: self.start_client(party.name))
            return
        self.world.later(self.world.random.choice((0.0, 0.001, 0.01, 0.05)), lambda: self._come_back(party))

    def _come_back(self, party: Party) -> None:
        if not self._is_there(party) or party.connection is not None:
            return
        connection = self._connect(party)
        if connection is None:
            self.world.later(0.03, lambda: self._come_back(party))
            return
        self.world.note(f"{party.name} comes back")
        party.register(connection)

    def connect_again(self, party: Party) -> None:
        """It makes another connection while the scheduler has not heard of the end of the first."""
        before = party.connection
        if before is None or party.number == 0 or self.scheduler is None:
            return
        self.cuts += 1
        self.world.note(f"{party.name} connects a second time")
        before.outward.ignore()
        self.world.later(self.world.random.choice((0.01, 0.1, 1.0)), before.inward.end)
        party.lose_connection()
        self._come_back(party)

    def cut(self, party: Party, chance: Random, kind: str) -> None:
        connection = party.connection
        if connection is None:
            return
        self.world.note(f"the stream of {party.name} breaks ({kind})")
        self.cuts += 1
        if kind == "one way":
            connection.break_one_way(chance)
        else:
            connection.break_(chance)

    # ----------------------------------------------------------------------------------------------- workers

    def start_worker(self, name: str) -> None:
        """A new life of that name; tried again while there is no scheduler, or it has not noticed the death of the one before."""
        self._lives += 1
        scenario = self.scenario
        worker = SimulatedWorker(
            self.world,
            name,
            f"tcp://host-of-{name}:{self._lives}",
            scenario.nthreads,
            {"slot": 1.0} if name.endswith(("0", "3")) else {},
            self.by_address,
            self._fate,
            scenario.duration_s,
            self._lives,
            f"nanny of {name}" if scenario.nannies else None,
            self._validate_every > 0,
        )
        connection = self._connect(worker)
        if connection is None:
            self.world.later(0.05, lambda: self.start_worker(name))
            return
        worker.on_end = lambda: self.world.later(0.05, lambda: self.start_worker(name))
        worker.register(connection)
        self.workers[name] = worker
        self.by_address[worker.address] = worker

    def registered_workers(self) -> list[SimulatedWorker]:
        """Those that the scheduler knows, and that are connected."""
        if self.scheduler is None:
            return []
        known = self.core.state.by_worker_id
        return [worker for worker in self.workers.values() if worker.connected and worker.id in known]

    def kill_worker(self, worker: SimulatedWorker, chance: Random, back_after: float) -> None:
        """It dies; what it has said last may or may not arrive. Another one comes with its name."""
        self.killed += 1
        self.world.note(f"{worker.name} dies")
        worker.die()
        connection = worker.connection
        if connection is not None:
            connection.outward.ignore()
            connection.inward.end(chance.choice((0.0, 0.005, 0.1)), lose=chance.random() < 0.5)
        if worker.nanny is not None:
            died = WorkerDied(worker.pid, -9, "", list(worker.running), list(worker.running.values()))
            self.world.later(self.world.latency(), lambda: self._nanny_says(worker, died))
        self.world.later(back_after, lambda: self.start_worker(worker.name))

    def _nanny_says(self, worker: SimulatedWorker, died: WorkerDied) -> None:
        if self.scheduler is not None and worker.nanny is not None:
            self.scheduler.nanny_says(worker.nanny, died)

    def _fate(self, key: Any) -> None:
        if self.world.random.random() < self.scenario.reschedule_share:
            raise Reschedule
        left = self.failures_left.get(key, 0)
        if left:
            self.failures_left[key] = left - 1
            raise Injected(f"{key!r} fails {left} more times")

    # ----------------------------------------------------------------------------------------------- clients

    def start_client(self, name: str) -> None:
        self._lives += 1
        client = SimulatedClient(self.world, name, self.universe)
        client.id = f"{name} {self._lives}"
        connection = self._connect(client)
        if connection is None:
            self.world.later(0.05, lambda: self.start_client(name))
            return
        client.register(connection)
        self.clients.append(client)
        self.everybody.append(client)

    def lose_client(self, client: SimulatedClient, chance: Random, politely: bool) -> None:
        self.world.note(f"{client.name} {'leaves' if politely else 'dies'}")
        self.clients.remove(client)
        connection = client.connection
        if politely and client.connected and connection is not None:
            client.leave()
            connection.close()
            return
        client.vanish()
        self.clients_killed += 1
        if connection is not None:
            connection.outward.ignore()
            connection.inward.end(chance.choice((0.0, 0.005, 0.1)), lose=chance.random() < 0.5)

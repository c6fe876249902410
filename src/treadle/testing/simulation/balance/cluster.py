"""A cluster that is to be judged for progress and balance: a scheduler, workers that come and go, clients; no broken streams."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from treadle.comm.interface import Role
from treadle.messages.scheduler_local import Retire
from treadle.messages.worker_scheduler import CloseWorker
from treadle.scheduler.policies.retirement import Retirement
from treadle.scheduler.policies.steps import LOOK_S
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.state import Limits
from treadle.testing.simulation.balance.parties import AskingClient, TimedWorker, Work
from treadle.testing.simulation.balance.scenario import BalanceScenario, Die, Join, Leave, Pause, Scatter, Step, Submit, key_of
from treadle.testing.simulation.network import Connection, World
from treadle.testing.simulation.scheduler import SimulatedScheduler, decoded, in_short

#: A submission is tried again so much later while what it needs is not there.
AGAIN_S: Final = 0.2


class BalanceCluster:
    """What is asked for, and who is there to do it. ``step_`` methods do what the script says."""

    def __init__(self, scenario: BalanceScenario, *, logging: bool = False) -> None:
        self.scenario = scenario
        self.world = World(scenario.seed, logging=logging)
        self.chance = random.Random(f"keys {scenario.seed}")
        limits = Limits(
            allowed_failures=1000,
            worker_saturation=scenario.saturation,
            scatter_replicas=scenario.scatter_replicas,
            no_workers_timeout_s=scenario.no_workers_timeout_s,
            client_weights=scenario.weights,
        )
        self.ticking = True
        self.scheduler = SimulatedScheduler(self.world, limits, 1, 0, None, 2**20, 0, lambda: self.ticking)
        #: Those who are here, by name; and all that ever were, by address.
        self.workers: dict[str, TimedWorker] = {}
        self.by_address: dict[str, Any] = {}
        self.clients: dict[str, AskingClient] = {}
        #: What the steps have asked for, by the place of the step, and by key; what is not done.
        self.asked: dict[int, list[Work]] = {}
        self.works: dict[Any, Work] = {}
        self.open: dict[Any, Work] = {}
        #: Workers that executed something and died; workers that retire, and since when.
        self.deaths = 0
        #: Seconds of tasks that have begun, by account.
        self.served: dict[str, float] = {}
        #: How many tasks of each function are done.
        self.finished: dict[int, int] = {}
        self.done_at: dict[Any, float] = {}
        self.leaving: dict[str, float] = {}
        self.has_retired = False
        #: For each place of a ``Scatter``: where the values were put, and who was there.
        self.onto: dict[int, list[str]] = {}
        self.there: dict[int, list[str]] = {}
        self._lives = 0
        names = dict.fromkeys(step.client for step in scenario.steps if isinstance(step, Submit | Scatter))
        for name in names:
            self._start_client(name)

    @property
    def core(self) -> Transitions:
        return self.scheduler.core

    def schedule(self) -> float:
        """Put all steps on the agenda. When the last of them is."""
        place = 0
        for step in self.scenario.steps:
            if isinstance(step, Submit | Scatter):
                self.world.timer(step.at, lambda step=step, place=place: self._ask(place, step))  # type: ignore[misc]
                place += 1
            else:
                self.world.timer(step.at, lambda step=step: self._change(step))  # type: ignore[misc]
        return max([step.at for step in self.scenario.steps], default=0.0)

    # ------------------------------------------------------------------------------------------------- parties

    def _connect(self, party: TimedWorker | AskingClient, role: Role, ended: Callable[[], None]) -> Connection:
        def receive(body: bytes) -> None:
            if self.world.logging:
                for message in decoded(role, body):
                    self.world.note(f"scheduler -> {party.name}: {in_short(message)}")
            party.receive(body)

        connection = Connection(self.world, party.name, role, receive, ended)
        self.scheduler.accept(connection)
        return connection

    def _start_client(self, name: str) -> None:
        client = self.clients[name] = AskingClient(self.world, name)
        client.register(self._connect(client, Role.CLIENT, lambda: None))

    def _start_worker(self, join: Join) -> None:
        self._lives += 1
        host = join.host or f"host-of-{join.name}"
        address = f"tcp://{host}:{self._lives}"
        worker = TimedWorker(
            self.world,
            join.name,
            address,
            join.nthreads,
            dict(join.resources),
            self.by_address,
            lambda key: None,
            0.0,
            self._lives,
            None,
            False,
            host=host,
        )
        worker.duration_of = self._duration_of
        worker.on_start = self._started
        worker.on_done = self._done
        worker.on_end = lambda: self._ended(worker)
        self.workers[join.name] = worker
        self.by_address[address] = worker
        worker.register(self._connect(worker, Role.WORKER, lambda: None))

    def _ended(self, worker: TimedWorker) -> None:
        self.workers.pop(worker.name, None)
        self.leaving.pop(worker.name, None)
        self._look_for_lost()

    def _duration_of(self, key: Any) -> float:
        return self.works[key].duration_s

    def _started(self, worker: TimedWorker, key: Any) -> None:
        self.world.note(f"{worker.name} begins {key!r}")
        work = self.works[key]
        self.served[work.account] = self.served.get(work.account, 0.0) + work.duration_s

    def _done(self, worker: TimedWorker, key: Any) -> None:
        self.world.note(f"{worker.name} ends {key!r}")
        work = self.works[key]
        work.done = True
        self.done_at[key] = self.world.now
        self.finished[work.function] = self.finished.get(work.function, 0) + 1
        self.open.pop(key, None)

    def _look_for_lost(self) -> None:
        """A worker is gone: what only it had is to be done again; what nobody can do again is lost."""
        there: set[Any] = set()
        for worker in self.workers.values():
            there.update(worker.store)
        for key, work in self.works.items():
            if work.done and key not in there:
                work.done = False
                self.open[key] = work

    # --------------------------------------------------------------------------------------------------- steps

    def _change(self, step: Step) -> None:
        self.world.note(f"--- {step}")
        if isinstance(step, Join):
            self._start_worker(step)
            return
        assert isinstance(step, Leave | Die | Pause)
        worker = self.workers.get(step.name)
        if worker is None or not worker.connected or worker.retiring:
            return
        if isinstance(step, Leave):
            worker.retiring = self.has_retired = True
            self.leaving[worker.name] = self.world.now
            self.scheduler.tell(Retire([worker.number]))
            self._empty(worker)
        elif isinstance(step, Die):
            self.deaths += len(worker.running)
            worker.die()
            assert worker.connection is not None
            worker.connection.outward.ignore()
            worker.connection.inward.end()
            self._ended(worker)
        else:
            worker.paused = True
            worker.pause(True)

            def go_on() -> None:
                worker.paused = False
                worker.pause(False)

            self.world.timer(step.for_s, go_on)

    def _empty(self, worker: TimedWorker, retirement: Retirement | None = None) -> None:
        """By the scheduler's own steps, until it can go, or stays because nobody can take what it has."""
        here = self.core.state.by_number.get(worker.number)
        if here is None or not worker.alive:
            return
        if retirement is None:
            retirement = Retirement(self.core.state, [here], None, self.world.now)
        for order in retirement.step(self.world.now):
            self.scheduler.tell(order)
        if not retirement.done:
            self.world.timer(LOOK_S, lambda: self._empty(worker, retirement))
        elif retirement.kept:
            self.scheduler.tell(Retire([worker.number], retiring=False))
            worker.retiring = False
            del self.leaving[worker.name]
        else:
            session = self.scheduler.sessions.by_number[worker.number]
            session.leaving = True
            self.scheduler.sessions.send(worker.number, [CloseWorker("retired")], [])

    def _ask(self, place: int, step: Submit | Scatter) -> None:
        client = self.clients[step.client]
        if isinstance(step, Scatter):
            self._scatter(place, step, client)
            return
        before = self.asked.get(step.of, [])
        parent = None
        if step.inside is not None:
            parent = self.asked[step.inside[0]][step.inside[1]]
        if client.number == 0 or (step.needs != "nothing" and (not before or any(work.scattered and not work.done for work in before))):
            self.world.timer(AGAIN_S, lambda: self._ask(place, step))
            return
        self.world.note(f"--- {step}")
        works: list[Work] = []
        for number in range(step.count):
            key = key_of(self.chance, step.naming, step.function, place, number)
            work = Work(
                key,
                client.new_id(),
                step.client,
                step.client if parent is None else parent.account,
                self.scenario.durations[step.function],
                step.function,
                self.world.now,
                step.naming,
                step.priority,
                _needs(step, before, number),
                step.workers,
                step.allow_other_workers,
                dict(step.resources or {}),
            )
            self.works[key] = self.open[key] = work
            works.append(work)
        self.asked[place] = works
        client.submit(works, f"function{step.function}", step.function, None if parent is None else parent.key)

    def _scatter(self, place: int, step: Scatter, client: AskingClient) -> None:
        workers = [self.workers[name] for name in step.onto if name in self.workers and self.workers[name].connected]
        if client.number == 0 or not workers:
            self.world.timer(AGAIN_S, lambda: self._scatter(place, step, client))
            return
        self.world.note(f"--- {step}")
        works = [
            Work(f"data{place}-{number}", client.new_id(), step.client, step.client, 0.0, -1, self.world.now, "hash", scattered=True)
            for number in range(step.count)
        ]
        for work in works:
            self.works[work.key] = work
        self.asked[place] = works
        worker = workers[place % len(workers)]
        self.onto[place] = [worker.name]

        def told() -> None:
            self.there[place] = [other.name for other in self.workers.values() if other.connected]
            for work in works:
                work.done = True

        client.scatter(works, worker, told)


def _needs(step: Submit, before: list[Work], number: int) -> list[Work]:
    if step.needs == "nothing" or not before:
        return []
    if step.needs == "all":
        return list(before)
    own = before[number % len(before)]
    if step.needs == "own":
        return [own]
    return list(dict.fromkeys([own, before[(number + 1) % len(before)]]))

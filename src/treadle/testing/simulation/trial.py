"""One simulation from beginning to end: acts and faults as the script has them, then peace, then the judgement."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from treadle.testing.simulation.client import SimulatedClient, options_for
from treadle.testing.simulation.cluster import Cluster
from treadle.testing.simulation.judgement import judge, nothing_is_left
from treadle.testing.simulation.scenario import Scenario, Step, with_script
from treadle.testing.simulation.worker import SimulatedWorker

MOST_STEPS = 200_000


class SimulationFailure(AssertionError):
    """The scenario, what was wrong, and what had happened before."""

    def __init__(self, scenario: Scenario, what: str, log: list[str]) -> None:
        super().__init__(scenario, what, log)
        self.scenario = scenario
        #: The error in a line.
        self.what = what
        self.log = log

    def __str__(self) -> str:
        return f"{self.scenario}\n\n{self.tail()}\n\n{self.what}"

    def tail(self, lines: int = 60) -> str:
        """What had happened before."""
        return "\n".join(self.log[-lines:])


def simulate(scenario: Scenario, *, validate_every: int | None = None, logging: bool = False) -> Cluster:
    """Run the scenario. Raises SimulationFailure when anything is not as it should be.

    ``validate_every``: turns of the scheduler between two looks at all its invariants; None: depends on the size.
    ``logging``: keep a line for each thing that happens; a failure is run again with that.
    """
    scenario = with_script(scenario)
    cluster = Cluster(scenario, logging=logging, validate_every=validate_every)
    try:
        _Trial(cluster).run()
    except Exception as error:
        if not logging:
            simulate(scenario, validate_every=validate_every, logging=True)
        what = f"{type(error).__name__}: {error}"
        raise SimulationFailure(scenario, what, cluster.world.log) from error
    return cluster


class _Trial:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.scenario = cluster.scenario
        self.universe = cluster.universe
        #: Of the step that is done.
        self.chance = Random(0)
        self._peace = False

    def run(self) -> None:
        world, scenario = self.world, self.scenario
        for number in range(scenario.workers):
            world.later(world.random.choice((0.0, 0.0, 0.05)), lambda number=number: self.cluster.start_worker(f"w{number}"))  # type: ignore[misc]
        for number in range(scenario.clients):
            self.cluster.start_client(f"c{number}")
        for step in scenario.script or ():
            world.at(step.at, lambda step=step: self._do(step))  # type: ignore[misc]
        last = max([step.at for step in scenario.script or ()], default=0.0)
        self.cluster.tick_until = last + 1.0
        world.run(MOST_STEPS, last + 1.0)
        self._make_peace()
        self._settle()
        judge(self.cluster)
        self._let_go()
        self._settle()
        nothing_is_left(self.cluster)

    def _settle(self) -> None:
        """Long enough for everybody to be given up, or found."""
        self.cluster.tick_until = self.world.now + 2 * max(self.scenario.grace_s, self.scenario.recovery_grace_s) + 4
        if self.cluster.scheduler is not None:
            self.cluster.scheduler.tick()
        self.world.run(MOST_STEPS)

    def _make_peace(self) -> None:
        """No more faults. Whoever is needed is there, or on its way."""
        self._peace = True
        if self.cluster.disk is not None:
            self.cluster.disk.full = False
        for worker in self.cluster.workers.values():
            worker.pause(False)

    # ------------------------------------------------------------------------------------------------- steps

    def _do(self, step: Step) -> None:
        self.chance = Random(step.salt)
        self.world.note(f"--- {step.what}")
        act: Callable[[], None] = getattr(self, "_" + step.what.replace(" ", "_"))
        act()

    def _some(self, things: list[Any], most: int = 4) -> list[Any]:
        return self.chance.sample(things, min(len(things), self.chance.randint(1, most))) if things else []

    def _client(self) -> SimulatedClient | None:
        clients = [client for client in self.cluster.clients if client.welcomed and not client.gone]
        return self.chance.choice(clients) if clients else None

    def _submit(self) -> None:
        client = self._client()
        if client is None:
            return
        targets = self._some(self.universe.keys)
        more = [key for key in self.universe.keys if self.chance.random() < 0.2]
        names = [f"w{number}" for number in range(self.scenario.workers)]
        options = options_for(self.chance, names, self.scenario.retries, self.scenario.restricted_share, self.scenario.workers > 0)
        self.world.note(f"{client.name} submits {targets} with {options}")
        client.submit(
            targets,
            more,
            self.chance.randint(1, self.scenario.chunks),
            options=options,
            priority=self.chance.choice((0, 0, 0, 1, -1)),
            fifo_timeout_s=self.chance.choice((60.0, 0.0)),
        )

    def _release(self) -> None:
        client = self._client()
        if client is not None:
            client.release(self._some(list(client.holds)))

    def _cancel(self) -> None:
        client = self._client()
        if client is not None:
            force = self.chance.random() < 0.3
            keys = self._some(list(client.holds), 2)
            self.world.note(f"{client.name} cancels {keys}{' for all' if force else ''}")
            if force:
                self.cluster.forced.update(keys)
            client.cancel(keys, force)

    def _retry(self) -> None:
        client = self._client()
        if client is not None:
            client.retry()

    def _attach(self) -> None:
        client = self._client()
        if client is not None:
            client.attach(self._some(list(self.universe.needs)))

    def _fire_and_forget(self) -> None:
        client = self._client()
        if client is not None:
            client.fire_and_forget(self._some(list(client.holds), 2))

    def _forget_function(self) -> None:
        client = self._client()
        if client is not None:
            client.forget_function()

    def _leave(self) -> None:
        client = self._client()
        if client is not None and not client.is_handing_over() and self.chance.random() < 0.5:
            self.cluster.lose_client(client, self.chance, politely=True)

    def _kill_client(self) -> None:
        client = self._client()
        if client is not None and not client.is_handing_over():
            self.cluster.lose_client(client, self.chance, politely=False)

    def _scatter(self) -> None:
        client = self._client()
        workers = self.cluster.registered_workers()
        if client is None or not workers or not self.universe.scattered:
            return
        chosen = self._some(workers, 2)
        key = self.chance.choice(list(self.universe.scattered))
        if self.chance.random() < 0.3:
            # A value that could be computed as well.
            key = self.chance.choice(list(self.universe.expected))
        self.cluster.scattered.add(key)
        self.world.note(f"{client.name} scatters {key!r} to {[worker.name for worker in chosen]}")
        client.scatter(key, [(worker.number, worker) for worker in chosen])

    # ------------------------------------------------------------------------------------------------- faults

    def _tick(self) -> None:
        if self.cluster.scheduler is not None:
            self.cluster.scheduler.tick()

    def _kill_worker(self) -> None:
        workers = self.cluster.registered_workers()
        if workers:
            self.cluster.kill_worker(self.chance.choice(workers), self.chance, self.chance.choice((0.0, 0.01, 0.1)))

    def _pause(self) -> None:
        workers = self.cluster.registered_workers()
        if workers:
            worker = self.chance.choice(workers)
            worker.pause(True)
            self.world.later(self.chance.uniform(0.01, 0.2), lambda: worker.pause(False))

    def _lose_data(self) -> None:
        workers = self.cluster.registered_workers()
        if workers:
            self.cluster.data_lost += 1
            worker = self.chance.choice(workers)
            known = self.cluster.core.state.by_worker_id[worker.id].has_what
            worker.lose_some_data({task.key for task in known})

    def _parties(self) -> list[Any]:
        parties: list[Any] = [client for client in self.cluster.clients if client.connection is not None]
        return parties + [worker for worker in self.cluster.workers.values() if worker.alive and worker.connection is not None]

    def _party(self) -> Any:
        parties = self._parties()
        return self.chance.choice(parties) if parties else None

    def _cut(self, kind: str = "both ways") -> None:
        party = self._party()
        if party is not None:
            self.cluster.cut(party, self.chance, kind)

    def _cut_one_way(self) -> None:
        self._cut("one way")

    def _cut_all(self) -> None:
        for party in self._parties():
            self.cluster.cut(party, self.chance, "both ways")

    def _cut_one_after_the_other(self) -> None:
        chance = self.chance
        for number, party in enumerate(self._parties()):
            self.world.later(number * 0.02, lambda party=party: self.cluster.cut(party, chance, "both ways"))  # type: ignore[misc]

    def _connect_again(self) -> None:
        party = self._party()
        if party is not None:
            self.cluster.connect_again(party)

    def _stall(self) -> None:
        party = self._party()
        if party is not None:
            party.connection.hold(self.chance.choice((0.05, 0.5)))

    def _forget_everything(self) -> None:
        self.cluster.forget_everything()

    def _kill_scheduler(self) -> None:
        self.cluster.kill_scheduler(self.chance, self.chance.choice((0.0, 0.01, 0.1, 0.5)))

    def _slow_disk(self) -> None:
        disk = self.cluster.disk
        if disk is not None:
            disk.sync_s = 0.5
            self.world.later(self.chance.uniform(0.05, 1.0), lambda: setattr(disk, "sync_s", 0.005))

    def _full_disk(self) -> None:
        disk = self.cluster.disk
        if disk is not None:
            disk.full = True
            self.world.later(self.chance.uniform(0.01, 0.5), lambda: setattr(disk, "full", False))

    def _retire(self) -> None:
        workers = self.cluster.registered_workers()
        if workers and self.cluster.scheduler is not None:
            self.cluster.retirements += 1
            self.cluster.scheduler.retire([worker.number for worker in self._some(workers, 2)])

    def _jump(self) -> None:
        """The clock of a party goes forward at once: its machine was suspended."""
        seconds = self.chance.choice((0.5, 3.0, 100.0))
        workers = [worker for worker in self.cluster.workers.values() if worker.alive]
        who = self.chance.choice([*workers, self.cluster.scheduler])
        if who is None:
            return
        if isinstance(who, SimulatedWorker):
            who.jumped_s += seconds
            self.cluster.suspended = True
        else:
            self.cluster.jumped = True
            who.loop.jumped_s += seconds
        self.world.note(f"a clock jumps by {seconds} s")

    def _let_go(self) -> None:
        for client in self.cluster.clients:
            client.release(list(client.holds))
            client.forget_function()

"""One simulation from beginning to end: acts and faults at random, then peace, then the judgement."""

from __future__ import annotations

from typing import Any

from treadle.client.ledger import CANCELLED, ERROR, FINISHED, LOST, KeyState
from treadle.testing.simulation.client import SimulatedClient, options_for
from treadle.testing.simulation.cluster import Cluster
from treadle.testing.simulation.scenario import Scenario

MOST_STEPS = 200_000


class SimulationFailure(AssertionError):
    """The scenario, what was wrong, and what had happened before."""


def simulate(scenario: Scenario) -> Cluster:
    """Run the scenario. Raises SimulationFailure when anything is not as it should be."""
    cluster = Cluster(scenario)
    try:
        _Trial(cluster).run()
    except Exception as error:
        tail = "\n".join(cluster.world.log[-60:])
        raise SimulationFailure(f"{scenario}\n\n{tail}\n\n{type(error).__name__}: {error}") from error
    return cluster


class _Trial:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.scenario = cluster.scenario
        self.chance = cluster.world.random
        self.universe = cluster.universe

    def run(self) -> None:
        self._prepare()
        self.world.run(MOST_STEPS)
        self._make_peace()
        self.world.run(self.world.steps + MOST_STEPS)
        self._judge()
        self._let_go()
        self.world.run(self.world.steps + MOST_STEPS)
        self._nothing_is_left()

    # -------------------------------------------------------------------------------------------- what happens

    def _prepare(self) -> None:
        scenario, chance, cluster = self.scenario, self.chance, self.cluster
        for number in range(scenario.workers):
            self.world.later(chance.choice((0.0, 0.0, 0.05)), lambda number=number: cluster.start_worker(f"w{number}"))  # type: ignore[misc]
        for number in range(scenario.clients):
            cluster.start_client(f"c{number}")
        self._at_random(1 if scenario.acts else 0, self._submit, self.chance.uniform(0.05, 0.1))
        self._at_random(scenario.acts, self._act)
        self._at_random(scenario.deaths, self._kill)
        self._at_random(scenario.pauses, self._pause)
        self._at_random(scenario.data_losses, self._lose_data)
        self._at_random(scenario.scattered * 2, self._scatter)
        self._at_random(3, cluster.tick)
        self._at_random(scenario.cuts, self._cut)
        if scenario.grace_s:
            self._at_random(10, cluster.tick)
        if scenario.restart:
            self._at_random(1, cluster.forget_everything)

    def _at_random(self, times: int, act: Any, at: float | None = None) -> None:
        for _ in range(times):
            self.world.later(self.chance.uniform(0.05, 0.05 + self.scenario.horizon_s) if at is None else at, act)

    def _some(self, things: list[Any], most: int = 4) -> list[Any]:
        return self.chance.sample(things, min(len(things), self.chance.randint(1, most))) if things else []

    def _client(self) -> SimulatedClient | None:
        clients = [client for client in self.cluster.clients if client.welcomed and not client.gone]
        return self.chance.choice(clients) if clients else None

    def _act(self) -> None:
        client = self._client()
        if client is None:
            return
        acts: list[Any] = (
            [self._submit] * 4 + [self._release] * 3 + [self._attach, self._retry, self._fire_and_forget, self._forget_function]
        )
        if self.scenario.cancels:
            acts += [self._cancel] * 2
        if self.scenario.leaves:
            acts.append(self._leave)
        self.chance.choice(acts)()

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
        # Values that it is just putting on workers would stay there: nobody else knows of them.
        if client is not None and not client.scattering and self.chance.random() < 0.5:
            self.cluster.lose_client(client, self.chance.random() < 0.5)

    def _scatter(self) -> None:
        client = self._client()
        workers = self.cluster.registered_workers()
        if client is None or not workers:
            return
        chosen = self._some(workers, 2)
        key = self.chance.choice(list(self.universe.scattered))
        if self.chance.random() < 0.3:
            # A value that could be computed as well.
            key = self.chance.choice(list(self.universe.expected))
        self.cluster.scattered.add(key)
        self.world.note(f"{client.name} scatters {key!r} to {[worker.name for worker in chosen]}")
        client.scatter(key, [(worker.number, worker) for worker in chosen])

    def _kill(self) -> None:
        workers = self.cluster.registered_workers()
        if workers:
            self.cluster.kill_worker(self.chance.choice(workers), self.chance.choice((0.0, 0.01, 0.1)))

    def _cut(self) -> None:
        """Mostly one stream, sometimes all."""
        parties: list[Any] = [client for client in self.cluster.clients if client.connected]
        parties += self.cluster.registered_workers()
        chosen = parties if self.chance.random() < 0.2 else self._some(parties, 1)
        for party in chosen:
            self.cluster.cut(party)

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
            known = self.cluster.core.state.by_number[worker.number].has_what
            worker.lose_some_data({task.key for task in known})

    def _make_peace(self) -> None:
        """No more faults. Whoever is needed is there."""
        for name in (f"w{number}" for number in range(self.scenario.workers)):
            worker = self.cluster.workers.get(name)
            assert worker is not None and worker.alive, f"{name} has not come back"
            worker.pause(False)
        # Whoever was to come back has done so; those that died or left are given up.
        self.world.later(self.scenario.grace_s + 1, self.cluster.tick)

    # ------------------------------------------------------------------------------------------- the judgement

    def _judge(self) -> None:
        for client in self.cluster.clients:
            for key, state in client.holds.items():
                self._judge_key(client, key, state)

    def _judge_key(self, client: SimulatedClient, key: Any, state: KeyState) -> None:
        cluster, universe = self.cluster, self.universe
        ancestors = universe.ancestors[key]
        about = f"{key!r} of {client.name} is {state.status}; {cluster.core.story(key)}"
        retried = any([other.retried for other in cluster.everybody])
        given_up = bool(cluster.cuts) and self.scenario.grace_s < 1
        lost_data = bool(ancestors & cluster.scattered) and bool(cluster.killed or cluster.data_lost or retried or given_up)
        if state.status is FINISHED:
            task = cluster.core.state.by_id.get(state.id)
            assert task is not None and task.key == key and task.who_has, f"nobody has it: {about}"
            for holder in task.who_has:
                worker = cluster.by_address[holder.address]
                assert worker.core.stored_key(task.id) is not None, f"{worker.name} should have it: {about}"
                assert worker.store[key] == universe.expected[key], f"{worker.name} has a wrong value: {about}"
        elif state.status is ERROR:
            failure = state.failure
            assert failure is not None and failure.blame in ancestors, f"blames {failure and failure.blame}: {about}"
            text = failure.error.exception_text
            self._judge_error(failure.blame, text, lost_data, about)
        elif state.status is CANCELLED:
            reason = str(getattr(state.detail, "reason", ""))
            asked_for = bool(ancestors & (cluster.forced | client.cancelled)) or cluster.restarted
            lost_name = reason == "already forgotten" and bool(ancestors & client.attached)
            # What it referred to was forgotten (it had attached to it too late), and so is all that was to come of it.
            lost_need = reason == "lost dependencies" and bool(ancestors & client.attached)
            # It was away for too long, or what others had brought was.
            forgotten = client.forgotten or (given_up and bool(ancestors & client.attached))
            assert asked_for or lost_name or lost_need or forgotten, f"for no reason ({reason}): {about}"
        else:
            assert state.status is LOST and lost_data, f"stuck: {about}"

    def _judge_error(self, blame: Any, text: str, lost_data: bool, about: str) -> None:
        if "KilledWorker" in text:
            assert (self.cluster.killed or self.cluster.cuts) and self.scenario.allowed_failures < 1000, f"killed nobody: {about}"
        elif "does not know this key" in text:
            assert self.cluster.cuts and self.scenario.grace_s < 1, f"nobody was given up: {about}"
        elif "was scattered" in text:
            given_up = self.cluster.cuts and self.scenario.grace_s < 1
            assert lost_data or given_up, f"no data was lost: {about}"
        else:
            assert "Injected" in text, f"failed with {text}: {about}"
            assert blame in self.universe.broken | self.cluster.flaky, f"{blame!r} was not to fail: {about}"

    def _let_go(self) -> None:
        for client in self.cluster.clients:
            client.release(list(client.holds))
            client.forget_function()

    def _nothing_is_left(self) -> None:
        state = self.cluster.core.state
        left: dict[str, Any] = {
            "tasks": list(state.tasks.values()),
            "ids": list(state.by_id),
            "functions": list(state.functions),
            "groups": list(state.groups),
            "unrunnable": list(state.unrunnable),
            "queue": state.queue.live,
            "bytes": state.total_nbytes,
            "fire and forget": list(state.fire_and_forget.wants_what),
        }
        for client in state.clients.values():
            left[client.id] = [*client.wants_what, *client.aliases, *client.alias_ids, *client.expecting]
        for worker in state.workers.values():
            left[worker.name] = [*worker.has_what, *worker.processing, *worker.actors]
            left[f"occupancy of {worker.name}"] = worker.occupancy
        left = {what: some for what, some in left.items() if some}
        assert not left, f"left on the scheduler: {left}"
        assert len(state.workers) == self.scenario.workers, f"{len(state.workers)} workers are there"
        for simulated in self.cluster.registered_workers():
            assert not simulated.left_over(), f"left on {simulated.name}: {simulated.left_over()}"

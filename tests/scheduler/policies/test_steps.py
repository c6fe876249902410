"""Retirement, replication and rebalancing take steps, each of a bounded size, and end with every value where it should be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from treadle.messages.scheduler_local import DropReplicas, ReplicateKeys, Retire
from treadle.messages.worker_scheduler import FetchReplicas
from treadle.scheduler.policies import rebalancer, retirement, steps
from treadle.scheduler.policies.rebalancer import Rebalancing, Replication
from treadle.scheduler.policies.retirement import Retirement
from treadle.scheduler.policies.steps import LOOK_S, NO_PROGRESS_S, Operation
from treadle.testing.scheduler_scene import SchedulerScene

SMALL = 5


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (steps, retirement, rebalancer):
        for name in ("MOST_LOOKED_AT", "MOST_UNDER_WAY"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, SMALL)


class Cluster:
    """A scene whose workers fetch what they are told, one step later; those in ``deaf`` never."""

    def __init__(self, workers: int) -> None:
        self.scene = SchedulerScene()
        self.names = [f"w{at}" for at in range(workers)]
        self.scene.workers(*self.names)
        self.scene.client("c")
        self.deaf: set[str] = set()
        #: Orders of each step.
        self.orders: list[list[Any]] = []

    @property
    def state(self) -> Any:
        return self.scene.core.state

    def scatter(self, count: int, to: str, prefix: str = "x") -> list[str]:
        keys = [f"{prefix}{at}" for at in range(count)]
        self.scene.scatter(*keys, to=[to])
        return keys

    def worker(self, name: str) -> Any:
        return self.scene.worker_state(name)

    def holders(self, key: str) -> set[str]:
        return {worker.name for worker in self.scene.task(key).who_has}

    def take(self, operation: Operation) -> Iterator[int]:
        """Step by step until it is done."""
        for number in range(1000):
            orders = operation.step(number * LOOK_S)
            self.orders.append(orders)
            for order in orders:
                self.scene._tell(order)
            if operation.done:
                return
            yield number
            self.fetch()
        raise AssertionError("it does not come to an end")

    def fetch(self) -> None:
        for name, party in list(self.scene.parties.items()):
            if name in self.names and name not in self.deaf:
                found = [message for message in party.inbox if isinstance(message, FetchReplicas)]
                party.inbox.clear()
                for message in found:
                    for holders in message.holders:
                        task = self.state.by_id.get(holders.id)
                        if task is not None:
                            self.scene.copy(task.key, on=name)

    def retire(self, *names: str, timeout_s: float | None = None) -> Retirement:
        workers = [self.worker(name) for name in names]
        self.scene._tell(Retire([worker.number for worker in workers]))
        return Retirement(self.state, workers, timeout_s, 0.0)


def counts(orders: list[list[Any]]) -> list[int]:
    return [sum(len(order.ids) for order in step) for step in orders]


@pytest.mark.usefixtures("small_steps")
def test_a_retirement_moves_all_values_in_small_steps() -> None:
    cluster = Cluster(4)
    keys = cluster.scatter(23, to="w0")
    retirement = cluster.retire("w0")
    for _ in cluster.take(retirement):
        pass
    assert all(cluster.holders(key) - {"w0"} for key in keys)
    assert sum(counts(cluster.orders)) == 23 and max(counts(cluster.orders)) <= SMALL
    assert not retirement.kept
    # They are spread.
    assert {name for key in keys for name in cluster.holders(key)} == {"w0", "w1", "w2", "w3"}


@pytest.mark.parametrize("small", [True, False])
def test_two_that_retire_do_not_count_on_each_other(small: bool, request: pytest.FixtureRequest) -> None:
    if small:
        request.getfixturevalue("small_steps")
    cluster = Cluster(3)
    keys = cluster.scatter(7, to="w0") + cluster.scatter(7, to="w1", prefix="y")
    for _ in cluster.take(cluster.retire("w0", "w1")):
        pass
    assert all("w2" in cluster.holders(key) for key in keys)


@pytest.mark.usefixtures("small_steps")
def test_a_retirement_looks_again_when_a_copy_is_gone() -> None:
    cluster = Cluster(3)
    keys = cluster.scatter(23, to="w0")
    for number in cluster.take(cluster.retire("w0")):
        if number == 4:
            cluster.scene.leave("w2")
            cluster.names.remove("w2")
    assert all("w1" in cluster.holders(key) for key in keys)


@pytest.mark.usefixtures("small_steps")
def test_a_retirement_waits_for_what_is_executing_and_moves_the_result() -> None:
    cluster = Cluster(2)
    cluster.scene.submit("a b")
    busy = cluster.scene.where("a")
    other = cluster.scene.where("b")
    cluster.scene.start("a", on=busy)
    for number in cluster.take(cluster.retire(busy)):
        if number == 9:
            cluster.scene.finish("a", on=busy)
    assert len(cluster.orders) > 9 and cluster.holders("a") == {busy, other}


def test_a_retirement_does_not_wait_for_ever_for_what_is_executing() -> None:
    cluster = Cluster(2)
    cluster.scene.submit("a b")
    busy = cluster.scene.where("a")
    cluster.scene.start("a", on=busy)
    for _ in cluster.take(cluster.retire(busy, timeout_s=1.0)):
        pass
    assert 50 <= len(cluster.orders) <= 60


def test_one_that_nobody_can_relieve_stays() -> None:
    cluster = Cluster(1)
    cluster.scatter(3, to="w0")
    retirement = cluster.retire("w0")
    for _ in cluster.take(retirement):
        pass
    assert list(retirement.kept.values()) == ["no other worker can take 'x0'"]


def test_one_whose_values_do_not_arrive_stays() -> None:
    cluster = Cluster(2)
    cluster.scatter(3, to="w0")
    cluster.deaf.add("w1")
    retirement = cluster.retire("w0")
    for order in retirement.step(0.0):
        cluster.scene._tell(order)
    assert not retirement.step(NO_PROGRESS_S / 2) and not retirement.done
    retirement.step(2 * NO_PROGRESS_S)
    retirement.step(2 * NO_PROGRESS_S + LOOK_S)
    assert retirement.done and list(retirement.kept.values()) == ["its values could not be copied"]


@pytest.mark.usefixtures("small_steps")
def test_replication_in_small_steps() -> None:
    cluster = Cluster(5)
    keys = cluster.scatter(12, to="w0")
    workers = [cluster.worker(name) for name in cluster.names]
    tasks = [cluster.scene.task(key) for key in keys]
    for _ in cluster.take(Replication(cluster.state, tasks, 4, workers, 2, 0.0)):
        pass
    assert all(len(cluster.holders(key)) == 4 for key in keys)
    # Two for each holder at a time.
    assert max(counts(cluster.orders)) <= 2 * SMALL


def test_replication_that_does_not_get_on_fails() -> None:
    cluster = Cluster(2)
    (key,) = cluster.scatter(1, to="w0")
    replication = Replication(cluster.state, [cluster.scene.task(key)], 2, [cluster.worker("w0"), cluster.worker("w1")], 2, 0.0)
    assert [type(order) for order in replication.step(0.0)] == [ReplicateKeys]
    with pytest.raises(TimeoutError, match="copies of 1 keys did not come"):
        replication.step(2 * NO_PROGRESS_S)


@pytest.mark.usefixtures("small_steps")
def test_rebalancing_in_small_steps() -> None:
    cluster = Cluster(3)
    keys = cluster.scatter(30, to="w0")
    workers = [cluster.worker(name) for name in cluster.names]
    for _ in cluster.take(Rebalancing(cluster.state, [cluster.scene.task(key) for key in keys], workers, 0.0)):
        pass
    assert [worker.nbytes for worker in workers] == [80, 80, 80]
    assert all(len(cluster.holders(key)) == 1 for key in keys)
    assert max(len(order.ids) for step in cluster.orders for order in step if isinstance(order, ReplicateKeys)) <= SMALL
    assert any(isinstance(order, DropReplicas) for step in cluster.orders for order in step)


@pytest.mark.parametrize("count", [10, 30_000])
def test_a_step_looks_at_so_many_values(count: int) -> None:
    cluster = Cluster(2)
    cluster.scene.core.state.limits.validate = False
    cluster.scatter(count, to="w0")
    orders = cluster.retire("w0").step(0.0)
    assert sum(len(order.ids) for order in orders if isinstance(order, ReplicateKeys)) == min(count, steps.MOST_UNDER_WAY)

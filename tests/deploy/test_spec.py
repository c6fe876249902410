"""A cluster of stand-ins for workers: what is started, stopped, and told of failures."""

import asyncio
import gc
import warnings

import pytest

from treadle.comm.security import Security
from treadle.deploy.spec import SpecCluster
from treadle.exceptions import WorkerStartTimeoutError
from treadle.utils.status import Status


class StandIn:
    """Starts and closes at once; ``fail`` makes it refuse to start."""

    alive = 0

    def __init__(self, scheduler, name, security, fail=False):
        self.name, self.fail, self.scheduler = name, fail, scheduler
        self._finished = asyncio.Event()

    def __await__(self):
        return self.start().__await__()

    async def start(self):
        await asyncio.sleep(0)
        if self.fail:
            raise ValueError(f"worker {self.name} does not want to")
        StandIn.alive += 1
        return self

    async def finished(self):
        await self._finished.wait()

    async def close(self, timeout=30):
        if not self.fail and not self._finished.is_set():
            StandIn.alive -= 1
        self._finished.set()


@pytest.fixture(autouse=True)
def none_alive():
    StandIn.alive = 0


def cluster_of(count, **options):
    security = Security.temporary()
    worker = {"cls": StandIn, "options": {}}
    scheduler = {"cls": "treadle.scheduler.server.Scheduler", "options": {"security": security, "host": "127.0.0.1"}}
    return SpecCluster({number: worker for number in range(count)}, scheduler, worker, security=security, **options)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_synchronous_cluster_runs_when_its_constructor_returns_and_closes_with_its_block():
    with cluster_of(2) as cluster:
        assert cluster.status is Status.running
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
        assert set(cluster.workers) == cluster.plan == cluster.requested == {0, 1}
        assert StandIn.alive == 2
        assert cluster.scheduler_address in repr(cluster) and "workers: 2" in repr(cluster)
        assert cluster.scheduler_info["address"] == cluster.scheduler_address
    assert cluster.status is Status.closed and StandIn.alive == 0
    cluster.close()


def test_scaling_starts_and_stops_the_youngest():
    async def scene():
        async with cluster_of(1, asynchronous=True) as cluster:
            await cluster.scale(3)
            assert list(cluster.workers) == [0, 1, 2] and StandIn.alive == 3
            await cluster.scale_up(2)
            assert StandIn.alive == 3
            await cluster.scale(2)
            assert list(cluster.workers) == [0, 1] and StandIn.alive == 2
            await cluster.scale_down([0])
            assert list(cluster.workers) == [1] and cluster.plan == {1}
            cluster.scale(2)  # goes on by itself
            await until(lambda: len(cluster.workers) == 2 and StandIn.alive == 2)
            with pytest.raises(ValueError, match="-1"):
                cluster.scale(-1)
        with pytest.raises(RuntimeError, match="closed"):
            cluster.scale(1)

    asyncio.run(scene())


def test_a_synchronous_cluster_scales_too():
    with cluster_of(0) as cluster:
        cluster.scale(2)
        cluster.sync(until, lambda: StandIn.alive == 2)


def test_a_worker_that_closes_by_itself_is_not_asked_for_any_more():
    async def scene():
        async with cluster_of(2, asynchronous=True) as cluster:
            await cluster.workers[0].close()
            await until(lambda: cluster.plan == {1})
            assert list(cluster.workers) == [1]

    asyncio.run(scene())


def test_a_failure_to_start_leaves_nothing_and_names_its_cause():
    workers = {"good": {"cls": StandIn}, "bad": {"cls": StandIn, "options": {"fail": True}}}
    with pytest.raises(RuntimeError, match="Cluster failed to start: worker bad does not want to") as caught:
        SpecCluster(workers, security=Security.temporary())
    assert isinstance(caught.value.__cause__, ValueError)
    assert StandIn.alive == 0


def test_waiting_for_workers_that_do_not_come():
    with cluster_of(1) as cluster, pytest.raises(WorkerStartTimeoutError, match="0/1"):
        cluster.wait_for_workers(1, timeout=0)  # a stand-in never registers


def test_a_cluster_that_nobody_closes_is_a_resource_warning_and_closed():
    async def scene():
        cluster = await cluster_of(1, asynchronous=True)
        scheduler = cluster.scheduler
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del cluster
            gc.collect()
        assert any("unclosed cluster" in str(warning.message) for warning in caught if warning.category is ResourceWarning)
        await until(lambda: StandIn.alive == 0 and scheduler.status is Status.closed)

    asyncio.run(scene())


def test_the_two_ways_of_use_are_not_mixed():
    async def scene():
        cluster = cluster_of(0, asynchronous=True)
        with pytest.raises(TypeError, match="async with"), cluster:
            pass
        await cluster
        await cluster.close()
        await cluster.close()

    asyncio.run(scene())

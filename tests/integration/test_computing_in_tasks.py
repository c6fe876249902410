"""Tasks that compute with dask do so on their cluster, and what came to them pickled knows its futures."""

import asyncio
import contextvars
import gc
import multiprocessing
import os
import threading
import time

import dask
import dask.array
import dask.bag
import dask.local
import dask.threaded
import pytest

from treadle import Client, LocalCluster, get_client, wait, worker_client

LIMIT_S = 60


@pytest.fixture(scope="module")
def processes():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture(params=["threads", "processes"])
def client(request):
    if request.param == "processes":
        with Client(request.getfixturevalue("processes")) as client:
            yield client
    else:
        with LocalCluster(n_workers=2, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
            yield client


@pytest.fixture
def threads():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False) as cluster:
        yield cluster


def where(_=None):
    from treadle import get_worker

    return get_worker().address


def spread(n=8):
    """Where each of some tasks runs that wait for each other: they need both workers."""
    return dask.bag.from_sequence(range(n), npartitions=n).map_partitions(lambda part: [(key_of_task(), where())])


def key_of_task():
    from treadle.context import current_task

    return current_task.get().key


class Holder:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("how", ["method", "function", "worker_client", "client", "persist"])
def test_tasks_compute_on_the_cluster(client, how):
    def outer():
        own = key_of_task()
        bag = spread()
        if how == "method":
            found = bag.compute()
        elif how == "function":
            (found,) = dask.compute(bag)
        elif how == "worker_client":
            with worker_client():
                found = bag.compute()
        elif how == "client":
            found = get_client().compute(bag, sync=True)
        else:
            (persisted,) = dask.persist(bag)
            assert all(type(value).__name__ == "Future" for value in persisted.dask.values())
            found = persisted.compute()
        return own, found

    # More of them than threads: each gives its place to what it waits for.
    for own, found in client.gather(client.map(lambda _: outer(), range(4), pure=False)):
        assert len(found) == 8 and all(key != own for key, _ in found)


def test_what_is_asked_for_in_a_task_wins(client):
    def outer():
        own = key_of_task()
        with dask.config.set(scheduler="synchronous"):
            first = spread().compute()
        second = spread().compute(scheduler="synchronous")
        return all(key == own for key, _ in first + second)

    assert client.submit(outer).result(LIMIT_S)


def test_a_persisted_collection_in_a_task(client):
    array = client.persist(dask.array.ones((40, 40), chunks=(10, 10)))
    wait(array)
    assert client.submit(lambda x: float((x + 1).sum().compute()), array).result(LIMIT_S) == 3200
    # In a closure, and in an object.
    assert client.submit(lambda: float(array.sum().compute())).result(LIMIT_S) == 1600
    assert client.submit(lambda given: float(dask.compute(given["x"].T.sum())[0]), {"x": array}).result(LIMIT_S) == 1600


def test_a_dataset_in_a_task(client):
    client.publish_dataset(numbers=client.persist(dask.bag.from_sequence(range(10), npartitions=3)))

    def outer():
        return get_client().get_dataset("numbers").map(lambda x: x + 1).sum().compute()

    try:
        assert client.submit(outer).result(LIMIT_S) == 55
    finally:
        client.unpublish_dataset("numbers")


def test_an_unpickled_collection_is_the_current_clients(threads):
    import cloudpickle

    with Client(threads, set_as_default=False) as first, Client(threads) as second:
        array = first.persist(dask.array.ones(10, chunks=5))
        data = cloudpickle.dumps(array)
        here = cloudpickle.loads(data)
        with first.as_current():
            there = cloudpickle.loads(data)
        del array
        assert {future.client for future in here.dask.values()} == {second}
        assert {future.client for future in there.dask.values()} == {first}
        # The second one's word has arrived before the last word of the first one.
        wait(here, timeout=LIMIT_S)
        del there
        assert here.sum().compute() == 10


def test_a_closure_with_a_future(processes):
    with Client(processes) as client:
        # Workers that no task has used a client on.
        client.restart()
        future = client.submit(len, "abc")
        assert client.submit(lambda: future.result() + 1).result(LIMIT_S) == 4


def test_worker_client_in_a_coroutine(client):
    async def outer():
        async with asyncio.timeout(LIMIT_S):
            with worker_client() as inner:
                assert inner.asynchronous
                return await inner.submit(len, "abc")

    assert client.gather(client.map(lambda _: outer(), range(4), pure=False)) == [3] * 4


def test_a_coroutine_cannot_block_its_worker(client):
    async def outer():
        with pytest.raises(RuntimeError, match="asynchronous"):
            spread().compute()
        return sum(await get_client().compute(dask.bag.from_sequence([1, 2, 3])))

    assert client.submit(outer).result(LIMIT_S) == 6


def test_a_coroutine_that_waits_in_a_thread(client):
    async def outer():
        return await asyncio.to_thread(lambda: get_client().submit(len, "abc", pure=False).result())

    assert client.gather(client.map(lambda _: outer(), range(4), pure=False)) == [3] * 4


def test_a_thread_that_a_task_started(client):
    def outer():
        found = []

        def inner():
            found.append(get_client().gather(get_client().map(len, ["a", "bc"])))
            found.append(dask.delayed(key_of_task)().compute() != own)

        from treadle import secede

        own = key_of_task()
        secede()
        thread = threading.Thread(target=inner)
        thread.start()
        thread.join()
        return found

    assert client.submit(outer).result(LIMIT_S) == [[1, 2], True]


def test_futures_outlive_the_one_that_brought_them(client):
    def make(n):
        return get_client().map(lambda i: (n, i), range(5), pure=False)

    def until_gone(key):
        """The value is gone from this worker, and the scheduler has heard what the worker's client said then."""
        from treadle import get_worker

        deadline = time.monotonic() + LIMIT_S
        while key in get_worker().data:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        gc.collect()
        get_client().scheduler_info()

    bringer = client.submit(make, 3, pure=False)
    futures = bringer.result(LIMIT_S)
    key, (address,) = bringer.key, client.who_has(bringer)[bringer.key]
    del bringer
    client.submit(until_gone, key, workers=address).result(LIMIT_S)
    assert client.gather(futures) == [(3, i) for i in range(5)]


@pytest.mark.parametrize("in_processes", [False, True])
def test_a_copy_on_another_worker_keeps_its_futures(in_processes):
    def make():
        return Holder(get_client().map(lambda i: 10 * i, range(3), pure=False, workers=[there], allow_other_workers=True))

    def results(holder):
        return [future.result() for future in holder.value]

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=in_processes) as cluster, Client(cluster) as client:
        here, there = client.nthreads()
        source = client.submit(make, pure=False, workers=here)
        # The second one has no client before the value comes, and that one blocks, as tasks in threads need it.
        copy = client.submit(lambda holder: holder, source, workers=there)
        taken = client.submit(lambda holder: [future.client.asynchronous for future in holder.value], copy)
        assert taken.result(LIMIT_S) == [False] * 3
        del source
        client.retire_workers([here])
        assert client.submit(results, copy).result(LIMIT_S) == [0, 10, 20]
        assert client.gather(copy.result(LIMIT_S).value) == [0, 10, 20]


def test_scattered_futures(client):
    future = client.submit(len, "abc", pure=False)
    held = client.scatter(Holder(future))
    assert client.submit(lambda holder: holder.value.result(), held).result(LIMIT_S) == 3


# ---------------------------------------------------------------------------------------------- which client


class Clusters:
    """Threads with a cluster and a client each, which go on together."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count, timeout=LIMIT_S)
        self.failures = []
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(count)]

    def run(self, number):
        try:
            with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster:
                self.scene(number, cluster)
        except BaseException as error:
            self.barrier.abort()
            self.failures.append(error)

    def all_done(self):
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join()
        assert not self.failures


@pytest.mark.parametrize("how", ["with", "as_current", "made"])
def test_threads_compute_on_their_own_clusters(how):
    class Scene(Clusters):
        def scene(self, number, cluster):
            client = Client(cluster, set_as_default=how != "as_current")
            try:
                if how == "with":
                    with client:
                        self.compute(cluster)
                elif how == "as_current":
                    with client.as_current():
                        self.compute(cluster)
                else:
                    self.compute(cluster)
            finally:
                client.close()

        def compute(self, cluster):
            self.barrier.wait()
            addresses = {worker.address for worker in cluster.workers.values()}
            assert set(dask.compute(dask.delayed(where)(), dask.delayed(where)(1))) <= addresses
            assert {dask.persist(dask.delayed(where)(2))[0].compute()} <= addresses
            self.barrier.wait()

    Scene(3).all_done()
    assert not dask.config.get("scheduler", None)


def test_outside_of_its_block_a_client_is_not_meant(threads):
    with Client(threads, set_as_default=False) as client:
        assert dask.base.get_scheduler() == client.get
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(dask.base.get_scheduler()))
        thread.start()
        thread.join()
        with dask.config.set(scheduler="synchronous"):
            assert dask.delayed(threading.get_ident)().compute() == threading.get_ident()
    assert dask.base.get_scheduler() is None
    # That thread may be one that a task has started.
    assert elsewhere[0] not in (None, client.get)


def test_what_was_configured_before_is_what_others_compute_with(processes):
    with dask.config.set(scheduler="synchronous"):
        with Client(processes, set_as_default=False) as client:
            assert dask.base.get_scheduler() == client.get
            assert contextvars.Context().run(dask.base.get_scheduler) is dask.local.get_sync
            with Client(processes) as newer:
                assert contextvars.Context().run(dask.base.get_scheduler) == newer.get
            with dask.config.set(scheduler="threads"), client.as_current():
                assert dask.base.get_scheduler() is dask.threaded.get
        assert dask.base.get_scheduler() is dask.local.get_sync
    assert dask.config.get("scheduler", None) is None


def test_a_client_and_a_worker_choose_methods_that_need_no_extension(processes):
    def method():
        return dask.config.get("dataframe.shuffle.method", None)

    with Client(processes) as client:
        assert method() == "tasks"
        assert client.run(method) == {address: "tasks" for address in client.nthreads()}
    assert method() is None


# ---------------------------------------------------------------------------------------------- forks


def in_child(scene):
    """What ``scene()`` returns in a fork of this process: text, or how it failed. The child is ended if it waits for ever."""
    ours, theirs = multiprocessing.Pipe(duplex=False)

    def run():
        try:
            theirs.send(str(scene()))
        except BaseException as error:
            theirs.send(f"{type(error).__name__}: {error}")

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    try:
        assert ours.poll(LIMIT_S), "the child waits for ever"
        return ours.recv()
    finally:
        process.kill()
        process.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork(processes):
    with Client(processes) as client:
        never = client.submit(lambda event=None: __import__("time").sleep(3600))
        large = client.submit(bytes, 10_000_000)
        wait(large)
        for use in (
            lambda: client.submit(len, "abc"),
            lambda: client.gather(client.map(len, ["abc"])),
            lambda: never.result(),
            lambda: wait([never]),
            lambda: next(iter(client.as_completed([never]))),
            lambda: large.result(),
            lambda: client.scheduler_info(),
            lambda: client.has_what(),
        ):
            assert "forked from" in in_child(use) and "make a new" in in_child(use)
        assert in_child(lambda: dask.delayed(os.getpid)().compute(scheduler="synchronous") == os.getpid()) == "True"
        assert in_child(lambda: dask.base.get_scheduler()) == "None"

        def anew():
            with Client(processes.scheduler_address, security=processes.security) as own:
                return own.submit(len, "abcd").result(), sum(dask.compute(dask.bag.range(4, 2))[0]), own.status

        assert in_child(anew) == "(4, 6, 'running')"

        def leave():
            client.close()
            processes.close()
            return client.status, str(processes.status)

        assert in_child(leave) == "('closed', 'Status.closed')"
        # The parent's is as it was.
        assert client.submit(len, "abcde").result(LIMIT_S) == 5
        client.cancel(never)
        client.restart()

"""A client, a scheduler and two workers, over TCP, the servers in this process and on the background loop."""

import asyncio
import contextlib
import operator
import threading
import time

import dask
import pytest

from treadle.client.as_completed import as_completed
from treadle.client.client import Client
from treadle.client.current import default_client, temp_default_client
from treadle.client.futures import Future
from treadle.client.session.peers import PeerPool
from treadle.client.waiting import fire_and_forget, futures_of, wait
from treadle.client.worker_client import get_client, worker_client
from treadle.comm.security import Security
from treadle.exceptions import ClosedClientError, CommClosedError, FutureCancelledError, FuturesCancelledError, WorkerStartTimeoutError
from treadle.scheduler.server import Scheduler
from treadle.utils.loop import LoopRunner
from treadle.worker.server import Worker

LIMIT_S = 60


class Cluster:
    def __init__(self, scheduler, workers, runner, security):
        self.scheduler, self.workers, self.runner, self.security = scheduler, workers, runner, security
        self.scheduler_address = scheduler.address

    def until(self, condition):
        """Wait until ``condition()`` is true on the servers' loop."""

        async def poll():
            async with asyncio.timeout(LIMIT_S):
                while not condition():
                    await asyncio.sleep(0.005)

        self.runner.sync(poll)


async def start(security, stack):
    scheduler = await stack.enter_async_context(Scheduler(security=security, port=0, validate=True))
    workers = [
        await stack.enter_async_context(Worker(scheduler.address, name=name, nthreads=nthreads, security=security, memory_limit=0))
        for name, nthreads in [("alice", 1), ("bob", 2)]
    ]
    return scheduler, workers


@pytest.fixture
def cluster():
    runner = LoopRunner()
    runner.start()
    security = Security.temporary()
    stack = contextlib.AsyncExitStack()
    try:
        scheduler, workers = runner.sync(start, security, stack)
        yield Cluster(scheduler, workers, runner, security)
        runner.sync(stack.aclose)
    finally:
        runner.stop()


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def inc(x):
    return x + 1


class Made:
    def __init__(self, value):
        self.value = value


def inc_object(x):
    return Made(x)


def fail(x):
    raise ValueError(f"cannot do {x}")


def slow(event_name):
    return event_name


# ---------------------------------------------------------------------------------------------- calls


def test_submit_and_map(client):
    future = client.submit(inc, 1)
    assert future.result(LIMIT_S) == 2
    assert (future.status, future.type, future.done()) == ("finished", "int", True)
    assert repr(future) == f"<Future: finished, type: int, key: {future.key}>"
    futures = client.map(operator.add, [1, 2, 3], (10, 20))
    assert client.gather(futures) == [11, 22]
    assert client.submit(inc, 1).key == client.map(inc, [1])[0].key == future.key


def test_a_small_result_takes_no_second_round_trip(client, monkeypatch):
    def get(*_):
        raise AssertionError("it came with the news")

    monkeypatch.setattr("treadle.client.session.peers.PeerPool.get", get)
    assert client.submit(inc, 1).result(LIMIT_S) == 2
    futures = [client.submit(inc, number) for number in range(10)]
    assert client.gather(futures) == list(range(1, 11))
    assert futures[0].result(LIMIT_S) is futures[0].result(LIMIT_S)
    with pytest.raises(ValueError, match="cannot do 3"):
        client.submit(fail, 3).result(LIMIT_S)


def test_a_large_result_is_fetched(client):
    assert client.submit(bytes, 5000).result(LIMIT_S) == bytes(5000)
    small, large, made = client.submit(inc, 1), client.submit(bytes, 5000), client.submit(inc_object, 1)
    assert client.gather([small, large, small]) == [2, bytes(5000), 2]
    assert made.result(LIMIT_S).value == 1


def test_a_result_that_does_not_come_in_time(client):
    blocked = client.submit(lambda: threading.Event().wait(1.0))
    with pytest.raises(TimeoutError):
        blocked.result(0.01)
    with pytest.raises(TimeoutError):
        blocked.result("10ms")


def test_futures_in_arguments(client):
    a, b = client.map(inc, [1, 2])
    assert client.submit(operator.add, a, b).result(LIMIT_S) == 5
    assert client.submit(lambda x, y: (x, y), [a, {"k": (b, 5)}], y={"z": [b]}).result(LIMIT_S) == ([2, {"k": (3, 5)}], {"z": [3]})
    assert client.gather(client.map(operator.add, [a, b], [1, 1])) == [3, 4]
    assert client.gather(client.map(lambda x, y: x + y, [1, 2], y=a)) == [3, 4]


def test_explicit_keys_and_purity(client):
    assert client.submit(inc, 1, key="mine").key == "mine"
    assert [future.key for future in client.map(inc, [1, 2], key=["x", ("y", 0)])] == ["x", ("y", 0)]
    assert client.map(inc, [1], key="prefix")[0].key.startswith("prefix-")
    one, two = client.submit(inc, 1, pure=False), client.submit(inc, 1, pure=False)
    assert one.key != two.key
    with pytest.raises(TypeError, match="key"):
        client.submit(inc, 1, key=frozenset())
    with pytest.raises(ValueError, match="keys"):
        client.map(inc, [1, 2], key=["x"])


def test_large_arguments_travel_once(client, cluster):
    big = b"x" * 1_000_000
    futures = client.map(lambda x, data: len(data) + x, range(5), data=big, pure=False)
    assert client.gather(futures) == [1_000_000 + i for i in range(5)]
    assert client.submit(len, big).result(LIMIT_S) == 1_000_000


def test_a_constant_that_many_use_is_one_task(client, cluster):
    big = b"y" * 1_000_000
    gate = client.map(lambda x, data: len(data), range(20), data=big)
    client.gather(gate)
    assert len({key for key in client.has_what()[cluster.workers[0].address] if str(key).startswith("bytes-")}) <= 1


def test_errors_come_back(client):
    future = client.submit(fail, 3)
    with pytest.raises(ValueError, match="cannot do 3"):
        future.result(LIMIT_S)
    assert isinstance(future.exception(), ValueError)
    assert future.traceback() is not None
    assert future.status == "error"
    dependent = client.submit(inc, future)
    with pytest.raises(ValueError, match="cannot do 3"):
        client.gather([client.submit(inc, 1), dependent])
    assert client.gather([client.submit(inc, 1), dependent], errors="skip") == [2]


def test_what_cannot_be_pickled_is_refused_at_the_call(client):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        client.submit(inc, lock)
    with pytest.raises(TypeError, match="lock"):
        client.map(inc, [1, lock])
    assert client.submit(inc, 5).result(LIMIT_S) == 6


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.submit(5), TypeError),
        (lambda c: c.map(inc, iter([1])), TypeError),
        (lambda c: c.submit(inc, 1, allow_other_workers=True), ValueError),
        (lambda c: c.submit(inc, 1, actor=True), NotImplementedError),
        (lambda c: c.gather([], errors="x"), ValueError),
        (lambda c: c.scatter(iter([1])), TypeError),
        (lambda c: wait(c.submit(inc, 1), c.submit(inc, 2)), TypeError),
        (lambda c: wait([c.submit(inc, 1)], return_when="x"), NotImplementedError),
        (lambda c: as_completed([1]), TypeError),
        (lambda c: c.get_executor(x=1), TypeError),
        (lambda c: c.wait_for_workers(0), ValueError),
        (lambda c: c.run(inc, 1, on_error="x"), ValueError),
        (lambda c: c.get({"a": 1}, ["b"]), ValueError),
    ],
)
def test_mistakes_are_refused(client, call, error):
    with pytest.raises(error):
        call(client)


def test_restrictions(client, cluster):
    futures = client.map(lambda _: get_client and None, range(4), workers="alice", pure=False)
    wait(futures, timeout=LIMIT_S)
    assert {addresses for addresses in client.who_has(futures).values()} == {(cluster.workers[0].address,)}


# ---------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize("data", [[1, "a"], (1, 2), {1, 2}, {"x": 1, ("y", 0): 2}, range(3), 5, [{"nested": [1]}]])
def test_scatter_keeps_the_shape(client, data):
    scattered = client.scatter(data)
    assert client.gather(scattered) == (list(data) if isinstance(data, range) else data)
    assert all(future.status == "finished" for future in futures_of(scattered))


def test_scatter_to_all(client, cluster):
    future = client.scatter([1, 2, 3], broadcast=True)[0]
    assert len(client.who_has([future])[future.key]) == 2
    assert client.submit(inc, future).result(LIMIT_S) == 2


def test_scatter_to_all_what_one_has(client, cluster, monkeypatch):
    # Else there were two copies in any case.
    monkeypatch.setattr(cluster.scheduler.transitions.state.limits, "scatter_replicas", 1)
    future = client.scatter([1, 2], workers=["alice"])[0]
    again = client.scatter([1, 2], broadcast=True)[0]
    key = future.key
    assert again.key == key
    cluster.until(lambda: len(cluster.scheduler.tasks[key].who_has) == 2)
    assert [worker.data[key] for worker in cluster.workers] == [1, 1]
    del future
    assert again.result(LIMIT_S) == 1
    del again
    cluster.until(lambda: key not in cluster.scheduler.tasks and not any(key in worker.data for worker in cluster.workers))


def test_what_could_not_be_scattered_to_all_is_kept_by_nobody(client, cluster, monkeypatch):
    put = PeerPool.put
    refused = []

    async def put_on_some(pool, address, message, buffers):
        answer = await put(pool, address, message, buffers)
        if address == cluster.workers[1].address:
            refused.append(address)
            raise CommClosedError("the connection broke before it had answered")
        return answer

    monkeypatch.setattr(PeerPool, "put", put_on_some)
    with pytest.raises(CommClosedError):
        client.scatter({"x": 1, "y": 2}, broadcast=True)
    assert refused
    cluster.until(lambda: not any(worker.data for worker in cluster.workers))
    cluster.until(lambda: not cluster.scheduler.tasks)


def test_nothing_is_scattered_of_values_of_which_one_cannot_be_pickled(client, cluster, monkeypatch):
    asked = []
    monkeypatch.setattr(PeerPool, "put", lambda *arguments: asked.append(arguments))
    with pytest.raises(TypeError, match="'y'"):
        client.scatter({"x": 1, "y": threading.Lock(), "z": 3})
    assert not asked


def test_scatter_to_one(client, cluster):
    future = client.scatter("value", workers=["bob"])
    assert client.who_has([future]) == {future.key: (cluster.workers[1].address,)}
    assert client.scatter("value", hash=False).key != future.key


def test_gather_of_nested_containers(client):
    a, b = client.map(inc, [1, 2])
    assert client.gather({"x": [a, (b, 5)], "y": {"z": a}}) == {"x": [2, (3, 5)], "y": {"z": 2}}
    assert list(client.gather(iter([a, b]))) == [2, 3]


def test_gather_of_anothers_futures(client, cluster):
    with Client(cluster, set_as_default=False) as other:
        future = other.submit(inc, 1)
        with pytest.raises(ValueError, match="another client"):
            client.gather([future])
        # As an argument it is wanted by both.
        assert client.submit(inc, future).result(LIMIT_S) == 3


def test_results_that_cannot_be_pickled(client):
    good, bad = client.submit(inc, 1), client.submit(threading.Lock)
    with pytest.raises(TypeError, match="lock"):
        bad.result(LIMIT_S)
    assert client.gather([good, bad], errors="skip") == [2]


def test_scattered_values_that_cannot_be_pickled(client):
    with pytest.raises(TypeError, match="'x' cannot be scattered"):
        client.scatter({"x": threading.Lock()})


def test_many_results_in_several_answers(client, cluster):
    for worker in cluster.workers:
        worker._server._max_answer_bytes = 100_000
    futures = client.map(lambda i: bytes([i]) * 50_000, range(20), pure=False)
    assert client.gather(futures) == [bytes([i]) * 50_000 for i in range(20)]


def test_many_futures(client):
    # All invariants are checked in each turn, which takes its time.
    futures = client.map(inc, range(1000))
    assert client.gather(futures) == list(range(1, 1001))
    assert client.submit(sum, futures).result(LIMIT_S) == sum(range(1, 1001))


def test_many_threads_submit(client):
    results = []

    def work(start):
        results.extend(client.gather([client.submit(inc, i) for i in range(start, start + 50)]))

    threads = [threading.Thread(target=work, args=(i * 25,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(set(results)) == list(range(1, 126))
    assert len(results) == 200


@pytest.mark.parametrize("key", [2**70, ("x", -(2**70)), "\ud800"])
def test_a_key_that_cannot_travel_is_refused(client, key):
    with pytest.raises(ValueError, match="cannot be a key"):
        client.submit(inc, 1, key=key)
    with pytest.raises(ValueError, match="cannot be a key"):
        client.get({key: 1}, [key])


# ---------------------------------------------------------------------------------------------- lives of futures


def test_released_keys_are_forgotten(client, cluster):
    future = client.submit(inc, 1, pure=False)
    future.result(LIMIT_S)
    again = Future(future.key, client)
    key = future.key
    del future
    assert again.result(LIMIT_S) == 2
    cluster.until(lambda: client.refcount == {key: 1})
    again.release()
    cluster.until(lambda: key not in cluster.scheduler.tasks)
    assert client.futures == {}


def test_the_same_key_again_after_release(client, cluster):
    for _ in range(20):
        assert client.submit(inc, 1).result(LIMIT_S) == 2


def test_cancel(client):
    future = client.submit(time.sleep, 0.01, pure=False)
    dependent = client.submit(inc, future)
    client.cancel(future, reason="changed my mind", msg="sorry")
    with pytest.raises(FutureCancelledError, match="changed my mind") as caught:
        future.result(LIMIT_S)
    assert (caught.value.key, caught.value.msg) == (future.key, "sorry")
    assert future.cancelled()
    with pytest.raises(FutureCancelledError):
        dependent.cancel() or dependent.result(LIMIT_S)
    with pytest.raises(FuturesCancelledError):
        wait([future])
    with pytest.raises(FutureCancelledError, match="lost dependencies"):
        client.submit(inc, future).result(LIMIT_S)


def test_retry(client):
    calls = client.scatter([0], hash=False)[0]

    def flaky(_, dask_path):
        import os

        if not os.path.exists(dask_path):
            raise OSError("not there yet")
        return "there"

    import os
    import tempfile

    path = os.path.join(tempfile.mkdtemp(), "flag")
    future = client.submit(flaky, calls, path)
    with pytest.raises(OSError, match="not there yet"):
        future.result(LIMIT_S)
    open(path, "w").close()
    future.retry()
    assert future.result(LIMIT_S) == "there"


def test_callbacks(client):
    called = threading.Event()
    seen = []
    future = client.submit(inc, 1)
    future.add_done_callback(lambda f: (seen.append((f.status, f.result())), called.set()))
    assert called.wait(LIMIT_S)
    assert seen == [("finished", 2)]
    called.clear()
    future.add_done_callback(lambda f: called.set())
    assert called.wait(LIMIT_S)


def test_fire_and_forget(client, cluster, tmp_path):
    path = tmp_path / "made"
    fire_and_forget(client.submit(path.touch))
    cluster.until(path.exists)


def test_wait(client):
    futures = client.map(inc, range(5))
    done, not_done = wait(futures, timeout=LIMIT_S)
    assert (done, not_done) == (set(futures), set())
    blocked = client.submit(time.sleep, 0.5, pure=False)
    done, not_done = wait([blocked, futures[0]], return_when="FIRST_COMPLETED")
    assert futures[0] in done
    with pytest.raises(TimeoutError):
        wait(blocked, timeout=0.001)
    with pytest.raises(TimeoutError):
        blocked.result(timeout=0.001)


def test_as_completed(client):
    futures = client.map(inc, range(5))
    assert sorted(future.result() for future in as_completed(futures)) == [1, 2, 3, 4, 5]
    assert sorted(result for _, result in as_completed(futures, with_results=True)) == [1, 2, 3, 4, 5]
    sequence = as_completed(futures[:2])
    sequence.add(futures[0])
    assert sequence.count() == 3
    assert sum(len(batch) for batch in sequence.batches()) == 3
    assert sequence.is_empty()
    bad = client.submit(fail, 1)
    ((future, (kind, _error, _traceback)),) = list(as_completed([bad], with_results=True, raise_errors=False))
    assert (future, kind) == (bad, ValueError)
    with pytest.raises(ValueError, match="cannot do"):
        list(as_completed([bad], with_results=True))
    with pytest.raises(TimeoutError):
        list(as_completed([client.submit(time.sleep, 0.5, pure=False)], timeout=0.001))


def test_executor(client):
    with client.get_executor() as executor:
        assert list(executor.map(inc, [1, 2])) == [2, 3]
        assert executor.submit(inc, 5).result(LIMIT_S) == 6
        assert isinstance(executor.submit(fail, 5).exception(LIMIT_S), ValueError)
    with pytest.raises(RuntimeError):
        executor.submit(inc, 1)


# ---------------------------------------------------------------------------------------------- graphs


def test_raw_graphs(client):
    dsk = {"a": 1, "b": (inc, "a"), ("c", 0): (sum, ["a", "b"]), "d": "b"}
    assert client.get(dsk, [["b"], ("c", 0), "d"]) == [[2], 3, 2]
    assert client.get(dsk, "b") == 2
    future = client.submit(inc, 10)
    assert client.get({"x": (inc, future), "y": (operator.add, "x", future)}, ["x", "y"]) == [12, 23]


class Late:
    """Can be pickled as soon as ``condition`` holds."""

    def __init__(self, condition):
        self.condition = condition

    def __reduce__(self):
        self.condition()
        return int, (5,)


def test_the_first_tasks_run_before_the_last_are_pickled(client, cluster, monkeypatch):
    monkeypatch.setattr("treadle.client.submitting.computing.CHUNK_ROWS", 5)
    begun = cluster.scheduler.transitions.statistics()["finished"]

    def others_have_run():
        cluster.until(lambda: cluster.scheduler.transitions.statistics()["finished"] >= begun + 5)

    graph = {f"k{number}": (inc, number) for number in range(20)}
    graph["total"] = (sum, list(graph))
    graph["last"] = (operator.add, "total", Late(others_have_run))
    assert client.get(graph, "last") == 215


def test_a_graph_of_several_chunks(client, monkeypatch):
    monkeypatch.setattr("treadle.client.submitting.computing.CHUNK_ROWS", 3)
    dsk = {"x0": 0}
    for i in range(1, 20):
        dsk[f"x{i}"] = (inc, f"x{i - 1}")
    dsk["sum"] = (sum, [f"x{i}" for i in range(20)])
    assert client.get(dsk, ["sum", "x19"]) == [190, 19]


def test_a_graph_that_cannot_be_pickled_leaves_nothing_behind(client, cluster, monkeypatch):
    monkeypatch.setattr("treadle.client.submitting.computing.CHUNK_ROWS", 2)
    lock = threading.Lock()
    dsk = {"a": 1, "b": (inc, "a"), "c": (inc, "b"), "d": (lambda x, y: (lock, x), "c", "a")}
    with pytest.raises(TypeError, match="task 'd'"):
        client.get(dsk, ["d", "b"])
    cluster.until(lambda: not cluster.scheduler.tasks)


def test_delayed_and_config(client):
    x = dask.delayed(inc)(1)
    assert (x + 1).compute() == 3
    assert client.compute(x).result(LIMIT_S) == 2
    assert client.compute([x, 5, {"k": x}], sync=True) == [2, 5, {"k": 2}]
    persisted = client.persist(x)
    assert futures_of(persisted)[0].result(LIMIT_S) == 2
    assert dask.persist(x)[0].compute() == 2
    assert dask.compute(x, {"y": [persisted]}) == (2, {"y": [2]})
    assert dask.base.get_scheduler().__self__ is client
    with pytest.raises(AssertionError):
        client.persist(5)


def test_arrays(client):
    da = pytest.importorskip("dask.array")
    x = da.arange(100, chunks=10)
    y = (x + 1).persist()
    assert y.sum().compute() == 5050
    assert client.compute(y.mean()).result(LIMIT_S) == 50.5
    assert (da.ones((20, 20), chunks=5).rechunk((20, 1)).T @ y[:20]).compute().tolist() == [210.0] * 20


def test_dataframes(client):
    dd = pytest.importorskip("dask.dataframe")
    pd = pytest.importorskip("pandas")
    frame = dd.from_pandas(pd.DataFrame({"a": range(100), "b": [i % 5 for i in range(100)]}), npartitions=4)
    assert frame.groupby("b").a.sum().compute().sort_index().tolist() == [950, 970, 990, 1010, 1030]
    persisted = frame.persist()
    assert len(persisted) == 100
    assert persisted.shuffle("b").a.max().compute() == 99


def test_annotations_restrict(client, cluster):
    with dask.annotate(workers="bob"):
        x = dask.delayed(inc)(1)
    future = client.compute(x, optimize_graph=False)
    wait(future, timeout=LIMIT_S)
    assert client.who_has([future])[future.key] == (cluster.workers[1].address,)


# ---------------------------------------------------------------------------------------------- inside tasks


def test_tasks_that_submit(client):
    def outer(n):
        inner = get_client()
        assert inner is get_client()
        return sum(inner.gather(inner.map(inc, range(n), pure=False)))

    # More of them than there are threads: each has to give its place to those it waits for.
    assert client.gather(client.map(outer, [3] * 6, pure=False)) == [6] * 6


def test_worker_client(client):
    def outer():
        with worker_client() as inner:
            return inner.submit(inc, 1).result() + default_client().submit(inc, 2).result()

    assert client.submit(outer).result(LIMIT_S) == 5


def test_collections_inside_tasks(client):
    def outer():
        with worker_client():
            return dask.delayed(inc)(5).compute()

    assert client.submit(outer).result(LIMIT_S) == 6


def test_futures_as_results_and_inside_objects(client):
    def outer():
        inner = get_client()
        return inner.submit(inc, 41)

    assert client.submit(outer).result(LIMIT_S).result(LIMIT_S) == 42


def test_coroutines_that_submit(client):
    async def outer():
        inner = get_client()
        return await inner.submit(inc, 1) + sum(await inner.gather(inner.map(inc, [1, 2])))

    assert client.submit(outer).result(LIMIT_S) == 7


# ---------------------------------------------------------------------------------------------- the cluster


def test_questions(client, cluster):
    alice, bob = [worker.address for worker in cluster.workers]
    futures = client.map(inc, range(3), workers="alice")
    wait(futures, timeout=LIMIT_S)
    keys = [future.key for future in futures]
    assert client.nthreads() == client.ncores() == {alice: 1, bob: 2}
    assert client.who_has(futures) == {key: (alice,) for key in keys}
    assert set(client.has_what()[alice]) >= set(keys)
    assert set(client.processing()) == {alice, bob}
    assert client.nbytes(keys=keys, summary=False).keys() == set(keys)
    assert client.nbytes()["inc"] > 0
    info = client.scheduler_info()
    assert (info["type"], info["n_workers"], set(info["workers"])) == ("Scheduler", 2, {alice, bob})
    assert repr(client).startswith(f"<Client: {cluster.scheduler_address!r} processes=2 threads=3")
    assert client._repr_html_()


def test_run(client, cluster):
    alice, bob = [worker.address for worker in cluster.workers]
    assert client.run(lambda dask_worker: dask_worker.name) == {alice: "alice", bob: "bob"}
    assert client.run(inc, 1, workers=["bob"]) == {bob: 2}

    async def later(x):
        await asyncio.sleep(0)
        return x

    assert client.run(later, 5) == {alice: 5, bob: 5}
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.workers)) == 2
    with pytest.raises(ValueError, match="cannot do"):
        client.run(fail, 1)
    with pytest.raises(ValueError, match="cannot do"):
        client.run_on_scheduler(fail, 1)
    assert {str(error) for error in client.run(fail, 1, on_error="return").values()} == {"cannot do 1"}
    assert client.run(fail, 1, on_error="ignore") == {}


def test_wait_for_workers(client):
    client.wait_for_workers(2, timeout=LIMIT_S)
    with pytest.raises(WorkerStartTimeoutError, match="Only 2/5"):
        client.wait_for_workers(5, timeout="10ms")


def test_a_lost_worker_is_made_up_for(client, cluster):
    futures = client.map(inc, range(20))
    client.gather(futures)
    cluster.runner.sync(cluster.workers[1].close)
    assert client.gather(futures) == list(range(1, 21))


# ---------------------------------------------------------------------------------------------- defaults and ends


def test_defaults(cluster):
    first = Client(cluster)
    second = Client(cluster)
    try:
        assert default_client() is second
        with first:
            assert Client.current() is default_client() is get_client() is first
        assert first.status == "closed"
        assert default_client() is second
        with Client(cluster, set_as_default=False) as third:
            with temp_default_client(third):
                assert default_client() is third
            with third.as_current():
                assert default_client() is third
        assert dask.base.get_scheduler() == second.get
    finally:
        second.close()
        first.close()
    assert not dask.config.get("scheduler")
    assert dask.base.get_scheduler() is None
    with pytest.raises(ValueError, match="No clients found"):
        default_client()


def test_a_closed_client(cluster):
    client = Client(cluster)
    future = client.submit(inc, 1)
    client.close()
    client.close()
    with pytest.raises(ClosedClientError):
        client.submit(inc, 1)
    assert future.status == "cancelled"
    assert "closed" in repr(client)


def test_a_scheduler_that_goes_away(client, cluster):
    future = client.submit(time.sleep, 0.2, pure=False)
    cluster.runner.sync(cluster.scheduler.close)
    with pytest.raises(FutureCancelledError, match="scheduler-connection-lost"):
        future.result(LIMIT_S)
    with pytest.raises(ClosedClientError):
        client.submit(inc, 1)


def test_nobody_there():
    with pytest.raises(OSError, match=r"127.0.0.1:9.*timeout"):
        Client("tcp://127.0.0.1:9", timeout="100ms", security={"secret": "x" * 32})
    with pytest.raises(ValueError, match="Unexpected keyword"):
        Client("tcp://127.0.0.1:9", n_workers=2)
    with pytest.raises(TypeError, match="address"):
        Client(5)


# ---------------------------------------------------------------------------------------------- asynchronous


def test_asynchronous_client():
    async def main():
        security = Security.temporary()
        async with contextlib.AsyncExitStack() as stack:
            scheduler, _workers = await start(security, stack)
            async with Client(scheduler.address, security=security, asynchronous=True) as client:
                future = client.submit(inc, 1)
                assert await future == 2
                assert await future.result() == 2
                assert await client.gather(client.map(inc, [1, 2])) == [2, 3]
                assert await client.gather(await client.scatter([1, 2])) == [1, 2]
                done, _ = await wait(client.map(inc, [5, 6]))
                assert len(done) == 2
                results = [await future async for future in as_completed(client.map(inc, [1, 2]))]
                assert sorted(results) == [2, 3]
                pairs = [result async for _, result in as_completed(client.map(inc, [1, 2]), with_results=True)]
                assert sorted(pairs) == [2, 3]
                assert await client.compute(dask.delayed(inc)(1)) == 2
                assert await client.get({"x": (inc, 1)}, ["x"]) == [2]
                assert set(await client.run(inc, 1)) == set(await client.nthreads())
                assert isinstance(await client.submit(fail, 1).exception(), ValueError)
                with pytest.raises(ValueError, match="cannot do"):
                    await client.submit(fail, 2)
                await client.cancel(future)
                assert future.cancelled()
                await client.wait_for_workers(2)
            assert client.status == "closed"

    asyncio.run(asyncio.wait_for(main(), LIMIT_S))


def test_calls_before_the_connection_is_made():
    async def main():
        security = Security.temporary()
        async with contextlib.AsyncExitStack() as stack:
            scheduler, _workers = await start(security, stack)
            client = Client(scheduler.address, security=security, asynchronous=True)
            futures = client.map(inc, range(5))
            total = client.submit(sum, futures)
            assert await total == 15
            assert await client.gather(futures) == [1, 2, 3, 4, 5]
            await client.close()

    asyncio.run(asyncio.wait_for(main(), LIMIT_S))


def test_the_scheduler_answers_by_name(cluster, client):
    future = client.submit(inc, 1, workers="bob")
    assert future.result() == 2
    bob = cluster.workers[1].address
    scheduler = client.scheduler
    assert scheduler.address == cluster.scheduler_address
    assert client.sync(scheduler.who_has, keys=[future.key]) == {future.key: (bob,)}
    assert client.sync(scheduler.has_what, workers=[bob]) == {bob: (future.key,)}
    assert client.sync(scheduler.ncores) == client.ncores()
    assert client.sync(scheduler.nbytes, keys=[future.key], summary=False) == client.nbytes([future.key], summary=False)
    assert client.sync(scheduler.processing, workers=[bob]) == {bob: ()}
    assert client.sync(scheduler.identity)["id"] == client.scheduler_info()["id"]
    with pytest.raises(AttributeError, match="'feed'.*who_has"):
        scheduler.feed  # noqa: B018

"""Workers retire, restart and leave; values are replicated and rebalanced; nothing that is wanted is lost or computed again."""

import os
import threading
import time

import pytest

from treadle import Client, LocalCluster, Reschedule, Worker, get_worker


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=3, threads_per_worker=1, processes=False, protocol="tcp") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


COUNTS = {}


def counted(key, nbytes=100):
    COUNTS[key] = COUNTS.get(key, 0) + 1
    return bytes(nbytes)


def holders(client, futures):
    return {future.key: set(client.who_has([future])[future.key]) for future in futures}


def addresses(client):
    return sorted(client.scheduler_info()["workers"])


def test_retired_workers_hand_their_values_over(client):
    COUNTS.clear()
    futures = client.map(counted, range(60))
    scattered = client.scatter(list(range(7, 11)))
    client.gather(futures)
    first, second, third = addresses(client)
    retired = client.retire_workers([first, second])
    assert set(retired) == {first, second} and retired[first]["type"] == "Worker"
    assert addresses(client) == [third]
    assert all(where == {third} for where in holders(client, futures).values())
    assert client.gather(scattered) == [7, 8, 9, 10]
    assert client.gather(futures) == [bytes(100)] * 60
    assert set(COUNTS.values()) == {1}


def test_a_worker_that_cannot_be_emptied_stays(client):
    futures = client.map(counted, range(9), pure=False)
    client.gather(futures)
    retired = client.retire_workers(addresses(client))
    assert retired == {} and len(addresses(client)) == 3
    assert {worker["status"] for worker in client.scheduler_info()["workers"].values()} == {"running"}
    del futures
    wait_for(lambda: not any(client.has_what().values()))
    assert len(client.retire_workers(n=2)) == 2
    assert len(addresses(client)) == 1


def wait_in_task(event_name):
    BEGUN.add(event_name)
    EVENTS[event_name].wait(60)
    return get_worker().address


EVENTS = {}
BEGUN = set()


def test_what_executes_is_finished_first_and_what_waits_runs_elsewhere(client):
    EVENTS["go"] = threading.Event()
    first, *_ = addresses(client)
    running = client.submit(wait_in_task, "go", workers=[first], pure=False)
    wait_for(lambda: "go" in BEGUN)  # what is merely assigned is taken back
    waiting = client.submit(os.getpid, workers=[first], allow_other_workers=True, pure=False)
    result = []
    thread = threading.Thread(target=lambda: result.append(client.retire_workers(first)))
    thread.start()
    wait_for(lambda: client.scheduler_info()["workers"].get(first, {}).get("status") == "closing_gracefully")
    assert waiting.result(timeout=60) == os.getpid()
    assert not running.done()
    EVENTS["go"].set()
    assert running.result(timeout=60) == first
    thread.join(60)
    assert list(result[0]) == [first]
    assert running.result() == first


def test_a_timeout_ends_the_waiting(client):
    EVENTS["never"] = threading.Event()
    first, *_ = addresses(client)
    running = client.submit(wait_in_task, "never", workers=[first], allow_other_workers=True, pure=False)
    wait_for(lambda: "never" in BEGUN)
    assert list(client.retire_workers(first, timeout=0.1)) == [first]
    wait_for(lambda: any(client.processing().values()))
    EVENTS["never"].set()
    assert running.result(timeout=60) != first


def test_workers_that_stay_open_get_nothing_new(client):
    first, *_ = addresses(client)
    assert list(client.retire_workers(first, close_workers=False)) == [first]
    assert client.scheduler_info()["workers"][first]["status"] == "closing_gracefully"
    assert first not in client.gather(client.map(lambda _: get_worker().address, range(30)))


def test_idle_workers_go_by_the_memory_in_use(client):
    assert len(client.retire_workers(minimum=1)) == 2
    assert client.retire_workers(minimum=1) == {}


def test_a_worker_that_closes_gracefully_leaves_its_values_behind(cluster, client):
    COUNTS.clear()
    futures = client.map(counted, range(100, 130))
    client.gather(futures)
    worker = cluster.workers[0]
    address = worker.address
    cluster.sync(worker.close_gracefully)
    assert address not in addresses(client)
    assert client.gather(futures) == [bytes(100)] * 30
    assert set(COUNTS.values()) == {1}


def test_scaling_down_loses_nothing(cluster, client):
    COUNTS.clear()
    futures = client.map(counted, range(200, 230))
    client.gather(futures)
    cluster.scale(1)
    wait_for(lambda: len(addresses(client)) == 1)
    assert client.gather(futures) == [bytes(100)] * 30
    assert set(COUNTS.values()) == {1}


def test_replicate(client):
    futures = client.map(counted, range(300, 310))
    client.replicate(futures, n=2)
    assert all(len(where) == 2 for where in holders(client, futures).values())
    client.replicate(futures)
    assert all(len(where) == 3 for where in holders(client, futures).values())
    late = client.submit(counted, 399)
    client.replicate([late], n=1, workers=addresses(client)[2:], branching_factor=1)
    assert addresses(client)[2] in holders(client, [late])[late.key]
    with pytest.raises(ZeroDivisionError):
        client.replicate(client.submit(lambda: 1 // 0))
    with pytest.raises(ValueError, match="no worker 'tcp://nobody:1'"):
        client.replicate(futures, workers=["tcp://nobody:1"])


def test_rebalance(client):
    first, second, third = addresses(client)
    futures = client.map(counted, range(400, 430), nbytes=10_000, workers=[first])
    client.rebalance(futures)
    where = holders(client, futures)
    assert all(len(found) == 1 for found in where.values())
    counts = [sum(found == {address} for found in where.values()) for address in (first, second, third)]
    assert counts == [10, 10, 10]
    client.rebalance(workers=[first, second])
    assert client.gather(futures) == [bytes(10_000)] * 30


def test_scattered_data_survives_its_worker(cluster, client):
    (future,) = client.scatter([{"a": 1}], hash=False)
    wait_for(lambda: len(client.who_has([future])[future.key]) == 2)
    doomed = client.who_has([future])[future.key][0]
    worker = next(worker for worker in cluster.workers.values() if worker.address == doomed)
    cluster.sync(worker.close)
    assert future.result() == {"a": 1}
    # A third one takes the place of the second.
    wait_for(lambda: len(client.who_has([future])[future.key]) == 2)


def elsewhere_than(address):
    if get_worker().address == address:
        time.sleep(0.01)
        raise Reschedule
    return get_worker().address


def test_reschedule_runs_on_another_worker(client):
    for address in addresses(client):
        assert client.submit(elsewhere_than, address, pure=False).result(timeout=60) != address


def test_restart_workers_gives_new_processes():
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        before = client.run(os.getpid)
        futures = client.map(lambda key: bytes(100), range(500, 510))  # a lambda: these workers cannot import this module
        client.gather(futures)
        first = sorted(before)[0]
        assert client.restart_workers([first], timeout=60) == {first: "OK"}
        after = client.run(os.getpid)
        assert len(after) == 2 and len(set(after.values()) & set(before.values())) == 1
        assert client.gather(futures) == [bytes(100)] * 10
        assert all(task.suspicious == 0 for task in cluster.scheduler.tasks.values())


def test_a_worker_that_nobody_replaces_is_not_restarted():
    with LocalCluster(n_workers=0, processes=False) as cluster, Client(cluster) as client:

        async def join():
            return await Worker(cluster.scheduler_address, nthreads=1, security=cluster.security, memory_limit=0)

        worker = cluster.sync(join)
        with pytest.raises(ValueError, match="has no nanny"):
            client.restart_workers([worker.address])
        client.restart(timeout=60)
        assert client.ncores() == {}

"""Within one process values are handed over as they are; what crosses a process is pickled."""

import asyncio
import contextlib
import socket
import threading

import numpy as np
import pytest

from treadle.client.client import Client
from treadle.client.worker_client import get_client, worker_client
from treadle.comm.security import Security
from treadle.deploy.local import LocalCluster
from treadle.scheduler.server import Scheduler
from treadle.worker.execution import get_worker
from treadle.worker.server import Worker

LIMIT_S = 60


@pytest.fixture(scope="module")
def client():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        yield client


def test_a_lock_can_be_a_result(client):
    future = client.submit(threading.Lock, pure=False)
    lock = future.result(LIMIT_S)
    with lock:
        assert client.submit(lambda lock: lock.locked(), future, pure=False).result(LIMIT_S) is True
    assert client.gather([future, [future]]) == [lock, [lock]]


def test_an_open_connection_can_be_a_result(client):
    pair = client.submit(socket.socketpair, pure=False)
    near, far = pair.result(LIMIT_S)
    with near, far:
        client.submit(lambda pair: pair[0].send(b"sent by a task"), pair).result(LIMIT_S)
        assert far.recv(100) == b"sent by a task"


def test_what_is_scattered_is_not_copied(client):
    lock, array = threading.Lock(), np.arange(1_000_000)
    futures = client.scatter({"lock": lock, "array": array}, broadcast=True)
    assert np.shares_memory(client.gather(futures)["array"], array)
    with lock:
        workers = list(client.scheduler_info()["workers"])
        locked = [client.submit(lambda lock: lock.locked(), futures["lock"], workers=[worker], pure=False) for worker in workers]
        assert client.gather(locked) == [True, True]


def test_workers_of_a_process_hand_each_other_values_as_they_are(client):
    one, other = list(client.scheduler_info()["workers"])
    lock = client.submit(threading.Lock, workers=[one], pure=False)
    with lock.result(LIMIT_S):
        assert client.submit(lambda lock: lock.locked(), lock, workers=[other], pure=False).result(LIMIT_S) is True


async def gather_what_is_here():
    """In tasks of a worker that others reach by TCP: the objects that the worker holds."""
    security = Security.temporary()
    async with contextlib.AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(Scheduler(security=security, port=0))
        for _ in range(2):
            await stack.enter_async_context(Worker(scheduler.address, nthreads=2, security=security, memory_limit=0))
        client = await stack.enter_async_context(Client(scheduler.address, security=security, asynchronous=True))
        workers = list((await client.scheduler.identity())["workers"])
        lock = client.submit(threading.Lock, workers=workers[:1], pure=False)
        array = client.submit(np.arange, 100_000, workers=workers[:1])
        held = client.submit(lambda *values: [id(value) for value in values], lock, array, workers=workers[:1])
        calls = [client.submit(function, [lock.key, array.key], workers=workers[:1]) for function in (results, gathered, awaited)]
        ids = await held
        assert await client.gather(calls) == [ids] * 3
        away = client.submit(results, [array.key], workers=workers[1:])
        assert await away != ids[1:]
        with pytest.raises(TypeError, match="lock"):
            await lock


def results(keys):
    from treadle.client.futures import Future

    assert get_worker().address.startswith("tcp://")
    with worker_client() as client:
        return [id(Future(key, client).result()) for key in keys]


def gathered(keys):
    from treadle.client.futures import Future

    client = get_client()
    return [id(value) for value in client.gather([Future(key, client) for key in keys])]


async def awaited(keys):
    from treadle.client.futures import Future

    client = get_client()
    return [id(await Future(key, client)) for key in keys]


def test_a_task_gathers_what_its_worker_holds_as_it_is():
    asyncio.run(gather_what_is_here())

"""Which client is meant when none is named: the one entered here, the running task's, this thread's own, the newest one.

dask asks the same question whenever it computes, see ``CurrentClient``.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from treadle.client import dask_config
from treadle.context import current_client, current_task, current_worker
from treadle.plugins.registry import factory

_lock = threading.RLock()
#: Open clients that want to be the default, oldest first.
_defaults: list[Any] = []
#: What ``temp_default_client`` made the default for all threads, innermost last.
_temporary: list[Any] = []
#: The default clients that were made in the thread that looks, oldest first.
_made_here = threading.local()
#: The workers that are open in this process, and the clients that their tasks share.
_workers: dict[Any, _ClientsOfWorker] = {}
#: All clients that are open.
open_clients: weakref.WeakSet[Any] = weakref.WeakSet()


class CurrentClient:
    """What dask is configured to compute with: whichever client is meant where and when it computes.

    dask takes any object that has ``get`` for a client if its class is called so. Where no client is meant, it is false, which
    dask takes for not configured, or stands for what was configured before.
    """

    def __bool__(self) -> bool:
        return _is_client_meant() or bool(dask_config.scheduler_before())

    @property
    def asynchronous(self) -> bool:
        client = find_client()
        return client is not None and bool(client.asynchronous)

    @property
    def get(self) -> Any:
        """The method of the client, bound to it: dask and others look there for the client itself."""
        client = find_client()
        if client is not None:
            return client.get
        from dask.base import get_scheduler

        return get_scheduler(scheduler=dask_config.scheduler_before())

    def __repr__(self) -> str:
        return "<CurrentClient>"

    def __reduce__(self) -> str:
        return "CURRENT_CLIENT"


CURRENT_CLIENT = CurrentClient()


# ---------------------------------------------------------------------------------------------- defaults


def push_default(client: Any) -> None:
    """This client is the default from now on, also for dask. Idempotent."""
    with _lock:
        if client in _defaults:
            return
        _defaults.append(client)
    dask_config.acquire(CURRENT_CLIENT, newest=True)


def made_here(client: Any) -> None:
    """The calling thread has made this default client: it prefers it to those of others."""
    clients = getattr(_made_here, "clients", None)
    if clients is None:
        clients = _made_here.clients = []
    clients[:] = [reference for reference in clients if (other := reference()) is not None and other.status != "closed"]
    clients.append(weakref.ref(client))


def pop_default(client: Any) -> None:
    """It is no longer: the newest of the others is, or nobody. Idempotent, in any order."""
    with _lock:
        if client not in _defaults:
            return
        _defaults.remove(client)
    dask_config.release(CURRENT_CLIENT)


def newest_default() -> Any | None:
    """The open default client made last: by the calling thread, if it has made one, else by any."""
    with _lock:
        for client in reversed(_temporary):
            if client.status != "closed":
                return client
        for reference in reversed(getattr(_made_here, "clients", ())):
            client = reference()
            if client in _defaults and client.status != "closed":
                return client
        for client in reversed(_defaults):
            if client.status != "closed":
                return client
    return None


def _entered() -> Any | None:
    client = current_client.get()
    return None if client is None or client.status == "closed" else client


def find_client() -> Any | None:
    """The client that code here and now means, or None. Inside a task one is made for its worker if need be."""
    client = _entered()
    if client is not None:
        return client
    worker = current_worker.get()
    if worker is None:
        client = newest_default()
        if client is not None:
            return client
        worker = _worker_of_process()
    return None if worker is None else client_of_worker(worker)


def _is_client_meant() -> bool:
    """Whether ``find_client`` would find one; makes none."""
    if _entered() is not None or current_worker.get() is not None or newest_default() is not None:
        return True
    return _worker_of_process() is not None


def _worker_of_process() -> Any | None:
    """Whose task may have started the calling thread, which knows nothing of that: a worker of this process, if all have one scheduler."""
    if threading.current_thread() is threading.main_thread():
        return None
    with _lock:
        workers = list(_workers)
    return workers[-1] if len({worker.scheduler_address for worker in workers}) == 1 else None


def default_client(c: Any = None) -> Any:
    """``c``, or else the client that is meant here. Raises ValueError when there is none."""
    client = c or find_client()
    if client is None:
        raise ValueError(
            "No clients found\n"
            "Start a client and point it to the scheduler address\n"
            "  from treadle import Client\n"
            "  client = Client('ip-addr-of-scheduler:8786')\n"
        )
    return client


@contextmanager
def entered(client: Any) -> Iterator[Any]:
    """``client`` is the current one in this context, before any default."""
    token = current_client.set(client)
    dask_config.acquire(CURRENT_CLIENT)
    try:
        yield client
    finally:
        dask_config.release(CURRENT_CLIENT)
        current_client.reset(token)


@contextmanager
def temp_default_client(c: Any) -> Iterator[None]:
    """``c`` is the default client inside the block, for all threads."""
    with _lock:
        _temporary.append(c)
    try:
        with entered(default_client(c)):
            yield
    finally:
        with _lock:
            for index in range(len(_temporary) - 1, -1, -1):
                if _temporary[index] is c:
                    del _temporary[index]
                    break


# ---------------------------------------------------------------------------------------------- in workers


class _ClientsOfWorker:
    """What its tasks share: threads one client that blocks, coroutines another one, asynchronous, on their loop."""

    def __init__(self) -> None:
        #: By the loop that they are used on; None for threads.
        self.by_loop: dict[Any, Any] = {}
        #: Held while one is connected that blocks. Nobody takes it on a loop, which may be the one that has to serve the connection.
        self.connecting = threading.Lock()

    def find(self, worker: Any) -> Any:
        try:
            loop: Any = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        client = self.by_loop.get(loop)
        if client is not None and client.status != "closed":
            return client
        if loop is not None:
            client = self.by_loop[loop] = _make_client(worker, asynchronous=True)
            return client
        with self.connecting:
            client = self.by_loop.get(None)
            if client is None or client.status == "closed":
                client = self.by_loop[None] = _make_client(worker, asynchronous=False)
            return client

    async def close(self) -> None:
        """On the worker's loop."""
        for loop, client in list(self.by_loop.items()):
            if loop is None:
                await asyncio.to_thread(client.close)  # blocks, and may need this loop
            else:
                await client.close()


def _make_client(worker: Any, *, asynchronous: bool) -> Any:
    client = factory("client")(
        worker.scheduler_address,
        security=getattr(worker, "security", None),
        set_as_default=False,
        asynchronous=asynchronous,
        name="worker",
    )
    client.is_near(worker.address, worker.near_address)
    return client


def worker_opened(worker: Any) -> None:
    """What its tasks compute with dask is computed by the cluster, until it closes."""
    with _lock:
        _workers[worker] = _ClientsOfWorker()
    dask_config.acquire(CURRENT_CLIENT)
    worker.at_close(partial(_worker_closed, worker))


async def _worker_closed(worker: Any) -> None:
    with _lock:
        clients = _workers.pop(worker, None)
    if clients is not None:
        dask_config.release(CURRENT_CLIENT)
        await clients.close()


def client_of_worker(worker: Any) -> Any:
    """The client that all tasks of this worker share; never the default. On a loop it may be used before it is connected."""
    with _lock:
        if worker not in _workers:
            # It closes, or was opened before a fork.
            worker_opened(worker)
        clients = _workers[worker]
    return clients.find(worker)


@contextmanager
def waiting() -> Iterator[None]:
    """Around a wait for other tasks: inside a task its thread's place is given back meanwhile, so that they can run.

    Nothing happens for a task that has no place in the pool: it runs elsewhere, or has left it already.
    """
    place = _place()
    if place is None or place.thread is not threading.current_thread():
        step_aside()
        yield
        return
    task = current_task.get()
    task.secede()
    try:
        yield
    finally:
        task.rejoin()


def step_aside() -> None:
    """Before a coroutine of a task, or a thread that it started, waits for other tasks: its place goes to them, for good."""
    if _place() is not None:
        current_task.get().secede()


def _place() -> Any | None:
    """The place in its worker's pool that the running task holds."""
    place = getattr(current_task.get(), "place", None)
    return None if place is None or not place.in_pool else place


# ---------------------------------------------------------------------------------------------- forks


def at_fork(call: Callable[[Any], None]) -> None:
    """Have ``call(client)`` done in the child of a fork, for each client that is open in the parent."""

    def in_child() -> None:
        global _lock
        _lock = threading.RLock()
        _defaults.clear()
        _temporary.clear()
        _made_here.clients = []
        _workers.clear()
        dask_config.forget_after_fork()
        # Its place is in a pool of the parent.
        current_task.set(None)
        for client in list(open_clients):
            call(client)
        open_clients.clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child)

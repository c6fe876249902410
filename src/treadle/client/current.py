"""Which client is meant when none is named: context first, then the running task's worker, then the newest open default.

While a default client is open, dask computes with it; what dask was configured to do before is restored after the last one.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dask.config

from treadle.context import current_client, current_task, current_worker

#: Without these dask picks a shuffle through the disk, or one that needs a scheduler extension, as soon as a client exists.
_METHODS = {"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"}

_lock = threading.RLock()
#: Open clients that want to be the default, oldest first.
_defaults: list[Any] = []
#: What dask.config held, for the keys that were changed when the first default client was opened.
_saved: dict[str, Any] = {}
#: The clients of this process's workers, shared by all tasks of a worker: by the loop that they are used on, None for threads.
_worker_clients: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()
#: All clients that are open.
open_clients: weakref.WeakSet[Any] = weakref.WeakSet()
_make_client: Callable[..., Any] | None = None


def set_client_class(make: Callable[..., Any]) -> None:
    """Called once by the module that defines ``Client``."""
    global _make_client
    _make_client = make


def new_client(*args: Any, **kwargs: Any) -> Any:
    if _make_client is None:
        raise RuntimeError("treadle.client.client was not imported")
    return _make_client(*args, **kwargs)


def push_default(client: Any) -> None:
    """This client is the default from now on, also for dask. Idempotent."""
    with _lock:
        if client in _defaults:
            return
        if not _defaults:
            _saved["scheduler"] = dask.config.get("scheduler", None)
            for key, method in _METHODS.items():
                if dask.config.get(key, None) is None:
                    _saved[key] = None
                    dask.config.set({key: method})
        _defaults.append(client)
        dask.config.set({"scheduler": client.get})


def pop_default(client: Any) -> None:
    """It is no longer: the newest of the others is, or nobody. Idempotent, in any order."""
    with _lock:
        if client not in _defaults:
            return
        _defaults.remove(client)
        # What the user set meanwhile stays.
        ours = getattr(dask.config.get("scheduler", None), "__self__", None) is client
        if _defaults:
            if ours:
                dask.config.set({"scheduler": _defaults[-1].get})
            return
        if ours:
            dask.config.set({"scheduler": _saved["scheduler"]})
        for key, method in _METHODS.items():
            if key in _saved and dask.config.get(key, None) == method:
                dask.config.set({key: _saved[key]})
        _saved.clear()


def newest_default() -> Any | None:
    """The most recently created default client that is open."""
    with _lock:
        for client in reversed(_defaults):
            if client.status != "closed":
                return client
    return None


def find_client() -> Any | None:
    """The client that code here and now means, or None. Inside a task one is made for its worker if need be."""
    client = current_client.get()
    if client is not None and client.status != "closed":
        return client
    worker = current_worker.get()
    if worker is not None:
        return client_of_worker(worker)
    return newest_default()


def client_of_worker(worker: Any) -> Any:
    """The client that all tasks of this worker share; never the default.

    Threads share one that blocks. Coroutines share another one, asynchronous, on their loop: it may be used before it is
    connected.
    """
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    with _lock:
        clients = _worker_clients.get(worker)
        if clients is None:
            clients = _worker_clients[worker] = {}
            worker.at_close(partial(_close_clients, clients))
        client = clients.get(loop)
        if client is None or client.status == "closed":
            client = clients[loop] = new_client(
                worker.scheduler_address,
                security=getattr(worker, "security", None),
                set_as_default=False,
                asynchronous=loop is not None,
                name="worker",
            )
        return client


async def _close_clients(clients: dict[Any, Any]) -> None:
    """Of a worker that closes, called on its loop."""
    for loop, client in list(clients.items()):
        if loop is None:
            await asyncio.to_thread(client.close)  # blocks, and may need this loop
        else:
            await client.close()


@contextmanager
def entered(client: Any) -> Iterator[Any]:
    """``client`` is the current one in this context, before any default."""
    token = current_client.set(client)
    try:
        yield client
    finally:
        current_client.reset(token)


@contextmanager
def waiting() -> Iterator[None]:
    """Around a wait for other tasks: inside a task its thread's place is given back meanwhile, so that they can run.

    Nothing happens for a task that has no place in the pool: it runs elsewhere, or has left it already.
    """
    task = current_task.get()
    place = getattr(task, "place", None)
    if place is None or not place.in_pool:
        yield
        return
    task.secede()
    try:
        yield
    finally:
        task.rejoin()


def step_aside() -> None:
    """Before a coroutine of a task waits for other tasks: its place goes to them, for good. It runs on the loop anyway."""
    task = current_task.get()
    place = getattr(task, "place", None)
    if place is not None and place.in_pool:
        task.secede()


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
def temp_default_client(c: Any) -> Iterator[None]:
    """``c`` is the default client inside the block, for all threads."""
    with _lock:
        _defaults.append(c)
    try:
        with entered(default_client(c)):
            yield
    finally:
        with _lock:
            for index in range(len(_defaults) - 1, -1, -1):
                if _defaults[index] is c:
                    del _defaults[index]
                    break

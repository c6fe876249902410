"""Clients inside tasks: ``get_client``, ``worker_client``, ``local_client``; and ``get_worker``'s half of the context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from treadle.client import current
from treadle.client.client import Client
from treadle.comm.addressing import normalize_address
from treadle.context import current_worker


def get_client(address: Any = None, timeout: Any = None, resolve_address: bool = True) -> Any:
    """The client to use here: in a task one that all tasks of the worker share, elsewhere the current or default one.

    With ``address``: a client of that scheduler. Raises ValueError when there is no client and no address.
    """
    worker = current_worker.get()
    if isinstance(address, str):
        address = normalize_address(address)
    if worker is not None and (address is None or address == normalize_address(worker.scheduler_address)):
        return current.find_client()
    client = current.find_client()
    if client is not None and (not address or client.scheduler_address == address):
        return client
    if address:
        return Client(address, **({} if timeout is None else {"timeout": timeout}))
    raise ValueError("No global client found and no address provided")


@contextmanager
def worker_client(timeout: Any = None, separate_thread: bool = True) -> Iterator[Any]:
    """A client for use inside a task. ``separate_thread``: the task leaves its worker's thread pool meanwhile."""
    if current_worker.get() is None:
        raise ValueError("worker_client() works inside tasks only; elsewhere make a Client")
    client = get_client(timeout=timeout)
    if not separate_thread:
        with client.as_current():
            yield client
        return
    with current.waiting(), client.as_current():
        yield client


local_client = worker_client

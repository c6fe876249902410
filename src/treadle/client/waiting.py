"""``wait``, ``futures_of`` and ``fire_and_forget``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from dask.base import is_dask_collection

from treadle.client import current
from treadle.client.base import optional_seconds
from treadle.client.futures import Future
from treadle.client.session.ledger import CANCELLED, PENDING, Cancellation, KeyState, Waiter
from treadle.exceptions import FutureCancelledError, FuturesCancelledError
from treadle.messages.client_scheduler import FireAndForget


class DoneAndNotDoneFutures(NamedTuple):
    """What ``wait`` returns: two sets of futures."""

    done: set[Future]
    not_done: set[Future]


def futures_of(o: Any, client: Any = None) -> list[Future]:
    """The futures in nested containers and dask collections, in order, each once.

    With ``client``: raises FuturesCancelledError when that client's keys of some of them are cancelled.
    """
    found: dict[Future, None] = {}
    #: Containers by identity: one may contain itself.
    seen: dict[int, Any] = {}
    stack = [o]
    while stack:
        value = stack.pop()
        if isinstance(value, Future):
            found[value] = None
            continue
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, dict):
            stack.extend(reversed(list(value.values())))
        elif isinstance(value, (list, tuple, set, frozenset)):
            stack.extend(reversed(list(value)))
        elif is_dask_collection(value):
            stack.extend(reversed(list(value.__dask_graph__().values())))
        elif hasattr(value, "args") and hasattr(value, "dependencies"):  # a graph node
            stack.extend(reversed([*value.args, *getattr(value, "kwargs", {}).values()]))
    futures = list(found)
    if client is not None:
        _raise_cancelled([future.state for future in futures])
    return futures


def _raise_cancelled(states: Iterable[KeyState]) -> None:
    errors = [
        FutureCancelledError(state.key, state.detail.reason, state.detail.msg)
        for state in states
        if state.status is CANCELLED and isinstance(state.detail, Cancellation)
    ]
    if errors:
        raise FuturesCancelledError(errors)


def wait(fs: Any, timeout: Any = None, return_when: str = "ALL_COMPLETED") -> Any:
    """Wait until all futures (or ``"FIRST_COMPLETED"``: one of them) are finished or failed: sets ``done`` and ``not_done``.

    Raises FuturesCancelledError when some are cancelled, TimeoutError. For an asynchronous client: an awaitable.
    """
    if timeout is not None and not isinstance(timeout, (int, float, str)) and not hasattr(timeout, "total_seconds"):
        kind = type(timeout).__name__
        raise TypeError(f"timeout= must be a number, text or a timedelta, got {kind}; to wait for several futures pass a list")
    if return_when not in ("ALL_COMPLETED", "FIRST_COMPLETED"):
        raise NotImplementedError("Only return_when='ALL_COMPLETED' and 'FIRST_COMPLETED' are supported")
    futures = futures_of(fs)
    client = futures[0].client if futures else current.default_client()
    timeout_s = optional_seconds(timeout)
    if client.asynchronous:
        current.step_aside()
        return client._on_own_loop(_wait(client, futures, timeout_s, return_when))
    with current.waiting():
        return client._runner.sync(_wait, client, futures, timeout_s, return_when)


async def _wait(client: Any, futures: list[Future], timeout_s: float | None, return_when: str) -> DoneAndNotDoneFutures:
    states = [future.state for future in futures]
    async with asyncio.timeout(timeout_s):
        if return_when == "ALL_COMPLETED":
            await client.session.settled(states)
        elif states and all([state.status is PENDING for state in states]):
            await _first_settled(client, states)
    _raise_cancelled(states)
    done = {future for future, state in zip(futures, states, strict=True) if state.status is not PENDING}
    return DoneAndNotDoneFutures(done, set(futures) - done)


async def _first_settled(client: Any, states: list[KeyState]) -> None:
    session = client.session
    first: asyncio.Future[None] = session.loop.create_future()

    def wake() -> None:
        if not first.done():
            first.set_result(None)

    waiter = Waiter(wake, collect=True)
    remaining = session.attach(states, waiter)
    try:
        if remaining == len(states):
            await first
    finally:
        waiter.active = False


def fire_and_forget(obj: Any) -> None:
    """Have these tasks run to their end even when nobody keeps their futures."""
    by_client: dict[Any, list[int]] = {}
    for future in futures_of(obj):
        if future.state.id:
            by_client.setdefault(future.client, []).append(future.state.id)
    for client, ids in by_client.items():
        client.session.send(FireAndForget(ids))

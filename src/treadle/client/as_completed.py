"""``as_completed``: futures in the order in which they settle, for loops of both kinds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from treadle.client import current
from treadle.client.base import optional_seconds
from treadle.client.futures import Future, error_of
from treadle.client.session.ledger import FINISHED, PENDING, KeyState, Waiter
from treadle.exceptions import TimeoutError


class as_completed:
    """Iterate over futures as they finish, fail or are cancelled; more can be added while iterating.

    ``with_results``: pairs of a future and its result. A future that failed then raises (``raise_errors``), or comes with the
    triple (type, exception, traceback). ``timeout`` counts from the start over all of them: TimeoutError.
    Use ``for`` with a synchronous client, ``async for`` with an asynchronous one.
    """

    def __init__(
        self,
        futures: Iterable[Future] | None = None,
        loop: Any = None,
        with_results: bool = False,
        raise_errors: bool = True,
        *,
        timeout: Any = None,
    ) -> None:
        self.with_results = with_results
        self.raise_errors = raise_errors
        self._lock = threading.Lock()
        #: Notified with the lock held whenever ``_ready`` grows.
        self._grown = threading.Condition(self._lock)
        #: How often each future is still to come.
        self._futures: Counter[Future] = Counter()
        self._by_state: dict[KeyState, list[Future]] = {}
        self._ready: deque[Future] = deque()
        #: Asynchronous readers that wait for ``_ready`` to grow, and the loop of each.
        self._readers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._timeout_s = optional_seconds(timeout)
        self._deadline: float | None = None
        if self._timeout_s is not None:
            self._deadline = time.monotonic() + self._timeout_s
        self.update(futures or ())

    # ------------------------------------------------------------------------------------------ adding

    def add(self, future: Future) -> None:
        """One more. A future that was added twice comes twice. Raises TypeError for what is no future."""
        self.update([future])

    def update(self, futures: Iterable[Future]) -> None:
        """Some more."""
        fresh = list(futures)
        for future in fresh:
            if not isinstance(future, Future):
                raise TypeError(f"Input must be a future, got {type(future).__name__}")
        by_client: dict[Any, list[KeyState]] = {}
        with self._lock:
            for future in fresh:
                self._futures[future] += 1
                waiting = self._by_state.setdefault(future.state, [])
                waiting.append(future)
                by_client.setdefault(future.client, []).append(future.state)
        for client, states in by_client.items():
            _Watch(self, client.session, states)

    def _settled(self, states: Iterable[KeyState]) -> None:
        """Called on a client's loop, or where it was found out that they are settled already."""
        readers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        with self._lock:
            for state in states:
                for future in self._by_state.pop(state, ()):
                    if self._futures[future]:  # not cleared meanwhile
                        self._ready.append(future)
            readers, self._readers = self._readers, readers
            self._grown.notify_all()
        for loop, reader in readers:
            loop.call_soon_threadsafe(_finish, reader)

    # ------------------------------------------------------------------------------------------ asking

    def count(self) -> int:
        """How many are still to come."""
        with self._lock:
            return sum(self._futures.values())

    def is_empty(self) -> bool:
        """Whether nothing is to come any more."""
        return not self.count()

    def has_ready(self) -> bool:
        """Whether the next one would come at once."""
        return bool(self._ready)

    def clear(self) -> None:
        """Forget all that were added."""
        with self._lock:
            self._futures.clear()
            self._by_state.clear()
            self._ready.clear()
            self._grown.notify_all()

    # ------------------------------------------------------------------------------------------ taking

    def _take(self) -> Future | None:
        """The next one that is ready; the lock is held."""
        if not self._ready:
            return None
        future = self._ready.popleft()
        self._futures[future] -= 1
        if not self._futures[future]:
            del self._futures[future]
        return future

    def _time_left(self) -> float | None:
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"as_completed: not all futures were done after {self._timeout_s:g} s")
        return left

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with nullcontext() if self._ready else current.waiting():
            with self._lock:
                while not self._ready:
                    if not self._futures:
                        raise StopIteration
                    self._grown.wait(self._time_left())
                future = self._take()
        assert future is not None
        return self._item(future, future.result) if self.with_results else future

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        loop = asyncio.get_running_loop()
        if not self._ready:
            current.step_aside()
        while True:
            with self._lock:
                future = self._take()
                if future is None:
                    if not self._futures:
                        raise StopAsyncIteration
                    reader: asyncio.Future[None] = loop.create_future()
                    self._readers.append((loop, reader))
            if future is not None:
                break
            try:
                await asyncio.wait_for(reader, self._time_left())
            except TimeoutError:
                self._time_left()
                raise
        if not self.with_results:
            return future
        if future.status is FINISHED:
            return future, await future
        return self._item(future, None)

    def _item(self, future: Future, result: Any) -> Any:
        """A future with its result."""
        if future.status is FINISHED and result is not None:
            return future, result()
        error = error_of(future.state)
        if error is None:
            return future, None if result is None else result()
        if self.raise_errors:
            raise error
        return future, (type(error), error, error.__traceback__)

    def next_batch(self, block: bool = True) -> list[Any]:
        """All that are ready; if there are none and ``block``, waits for the next one. May be empty only if not ``block``."""
        batch = [next(self)] if block else []
        while self.has_ready():
            batch.append(next(self))
        return batch

    def batches(self) -> Iterator[list[Any]]:
        """Lists of all that were ready at a time, until nothing is to come."""
        while True:
            try:
                yield self.next_batch(block=True)
            except StopIteration:
                return


class _Watch:
    """Hears of some keys of one client."""

    def __init__(self, target: as_completed, session: Any, states: list[KeyState]) -> None:
        self._target = target
        self._session = session
        self._waiter = Waiter(self._heard, collect=True)
        with session.lock:
            pending = {state for state in states if state.status is PENDING}
            session.attach(list(pending), self._waiter)
        settled = [state for state in states if state not in pending]
        if settled:
            target._settled(settled)

    def _heard(self) -> None:
        with self._session.lock:
            settled, self._waiter.settled = self._waiter.settled or [], []
            self._waiter.woken = False
        self._target._settled(settled)


def _finish(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)

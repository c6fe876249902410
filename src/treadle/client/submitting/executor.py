"""A cluster behind the interface of ``concurrent.futures``."""

from __future__ import annotations

import concurrent.futures as cf
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from treadle.client.futures import Future, error_of
from treadle.client.session.ledger import CANCELLED, FINISHED

_OPTIONS: Final = frozenset(["pure", "workers", "resources", "allow_other_workers", "retries"])


class ClientExecutor(cf.Executor):
    """Submits to a client's cluster. Options are those of ``Client.submit``; calls are not pure unless asked for."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - _OPTIONS)
        if unknown:
            raise TypeError(f"unsupported arguments to ClientExecutor: {unknown}")
        self._client = client
        self._kwargs = {"pure": False, **kwargs}
        self._lock = threading.Lock()
        self._shut_down = False
        self._futures: weakref.WeakSet[cf.Future[Any]] = weakref.WeakSet()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        """Call ``fn(*args, **kwargs)`` on the cluster. Raises RuntimeError after ``shutdown``."""
        with self._lock:
            if self._shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future = self._client.submit(fn, *args, **kwargs, **self._kwargs)
            result: cf.Future[Any] = cf.Future()
            self._futures.add(result)
        result.add_done_callback(_Canceller(future))
        future.add_done_callback(_Forwarder(result))
        return result

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1, **kwargs: Any
    ) -> Iterator[Any]:
        """As the builtin ``map``, in parallel; results in order. ``timeout`` in seconds counts from now on. Every call is a task
        of its own: ``chunksize`` changes nothing."""
        if kwargs:
            raise TypeError(f"map() got unexpected arguments: {sorted(kwargs)}")
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            if self._shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
        futures = self._client.map(fn, *[list(iterable) for iterable in iterables], **self._kwargs)

        def results() -> Iterator[Any]:
            try:
                for future in futures:
                    yield future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
            finally:
                pending = [future for future in futures if not future.done()]
                if pending:
                    self._client.cancel(pending)

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. ``wait``: for those under way; otherwise they are cancelled."""
        with self._lock:
            self._shut_down = True
            futures = list(self._futures)
        if wait and not cancel_futures:
            cf.wait(futures)
            return
        for future in futures:
            future.cancel()


class _Forwarder:
    """Carries what became of a cluster's future over to a standard one."""

    def __init__(self, result: cf.Future[Any]) -> None:
        self._result = result

    def __call__(self, future: Future) -> None:
        result = self._result
        if future.status is CANCELLED:
            result.cancel()
            return
        if not result.set_running_or_notify_cancel():
            return
        error = error_of(future.state)
        try:
            if error is None or future.status is FINISHED:
                result.set_result(future.result())
            else:
                result.set_exception(error)
        except BaseException as failure:
            result.set_exception(failure)


class _Canceller:
    """Cancels the cluster's future with the standard one."""

    def __init__(self, future: Future) -> None:
        self._future = future

    def __call__(self, result: cf.Future[Any]) -> None:
        if result.cancelled() and not self._future.done():
            self._future.cancel()
        del self._future

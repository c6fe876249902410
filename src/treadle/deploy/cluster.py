"""What every kind of cluster offers to its user: one object, synchronous or asynchronous, that starts, scales and closes."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import secrets
import warnings
import weakref
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

from treadle.client.client import Client
from treadle.comm.security import Security
from treadle.exceptions import WorkerStartTimeoutError
from treadle.unused_settings import begin
from treadle.utils.loop import LoopRunner
from treadle.utils.status import Status

#: Seconds for closing forgotten clusters when the interpreter ends.
_EXIT_TIMEOUT_S = 10.0
C = TypeVar("C", bound="Cluster")


class Cluster:
    """The base of the clusters. A subclass says how to ``_start`` and ``_close``, and which scheduler it has.

    A synchronous cluster is usable when the constructor returns, and ``with`` closes it. With ``asynchronous=True``, ``await`` the
    cluster or use ``async with``, and await its methods.
    """

    def __init__(self, *, name: str | None = None, asynchronous: bool = False, loop: Any = None, security: Security | None = None) -> None:
        begin("a cluster")
        self.name = name or f"{type(self).__name__}-{secrets.token_hex(4)}"
        self.security = security
        self.status = Status.created
        self._loop_runner = LoopRunner(asynchronous=asynchronous, loop=loop)
        self._loop_runner.start()
        self._starting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        _clusters.add(self)

    # ------------------------------------------------------------------------------------------ for subclasses

    async def _start(self) -> None:
        """Start everything. On failure, leave nothing behind and raise."""
        raise NotImplementedError("a subclass of Cluster must define _start")

    async def _close(self, timeout_s: float) -> None:
        """Stop everything, by force after ``timeout_s`` seconds. Called once, even if ``_start`` did not finish."""
        raise NotImplementedError("a subclass of Cluster must define _close")

    @property
    def scheduler_address(self) -> str:
        """The address that clients connect to; empty while there is none."""
        raise NotImplementedError("a subclass of Cluster must define scheduler_address")

    @property
    def scheduler_info(self) -> dict[str, Any]:
        """What the scheduler says of itself and of its workers (``scheduler_info["workers"]``) at this moment."""
        raise NotImplementedError("a subclass of Cluster must define scheduler_info")

    def scale(self, n: int) -> Any:
        """Ask for ``n`` workers."""
        raise NotImplementedError("this kind of cluster cannot be scaled")

    # ------------------------------------------------------------------------------------------ the two ways to call

    @property
    def asynchronous(self) -> bool:
        """Whether methods return awaitables: for an asynchronous cluster, and for code that runs on the cluster's own loop."""
        return self._loop_runner.asynchronous or self._loop_runner.in_loop_thread

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop_runner.loop

    def sync(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: Any, callback_timeout: float | None = None, **kwargs: Any) -> Any:
        """Call a coroutine function: an awaitable if ``asynchronous``, else block and return the result."""
        if self.asynchronous:
            return func(*args, **kwargs)
        return self._loop_runner.sync(func, *args, callback_timeout=callback_timeout, **kwargs)

    # ------------------------------------------------------------------------------------------ start and close

    async def _ensure_started(self: C) -> C:
        if self._starting is None:
            self.status = Status.starting
            self._starting = asyncio.ensure_future(self._start_or_fail())
        await asyncio.shield(self._starting)
        return self

    async def _start_or_fail(self) -> None:
        try:
            await self._start()
        except BaseException as error:
            with contextlib.suppress(Exception):
                await self._close(1.0)
            self.status = Status.failed
            if not isinstance(error, Exception):
                raise
            raise RuntimeError(f"Cluster failed to start: {str(error) or type(error).__name__}") from error
        self.status = Status.running

    def __await__(self: C) -> Generator[Any, None, C]:
        return self._ensure_started().__await__()

    async def _close_once(self, timeout_s: float) -> None:
        if self.status in (Status.closed, Status.failed):
            return
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close_all(timeout_s))
        await asyncio.shield(self._closing)

    async def _close_all(self, timeout_s: float) -> None:
        self.status = Status.closing
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait({self._starting})
        try:
            await self._close(timeout_s)
        finally:
            self.status = Status.closed

    def close(self, timeout: float | None = None) -> Any:
        """Stop the workers and the scheduler, by force after ``timeout`` seconds (default 10). Idempotent."""
        timeout_s = 10.0 if timeout is None else float(timeout)
        if self.asynchronous:
            return self._close_once(timeout_s)
        if self.status in (Status.closed, Status.failed) and not self._loop_runner.started:
            return None
        try:
            self._loop_runner.sync(self._close_once, timeout_s)
        finally:
            self._loop_runner.stop()
        return None

    def __enter__(self: C) -> C:
        if self._loop_runner.asynchronous:
            raise TypeError("use 'async with' for an asynchronous cluster")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self: C) -> C:
        return await self._ensure_started()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close_once(10.0)

    def __del__(self) -> None:
        status = getattr(self, "status", Status.closed)
        if status in (Status.created, Status.closed, Status.failed):
            return
        warnings.warn(f"unclosed cluster {self!r}; close it, or use it in a 'with' statement", ResourceWarning, source=self, stacklevel=2)
        # This object goes away while its parts live on the loop. Close them there, without waiting: this may run in any thread.
        closing = self._close(1.0)
        try:
            asyncio.run_coroutine_threadsafe(closing, self._loop_runner.loop)
        except RuntimeError:
            closing.close()  # the loop is gone, and its parts with it

    # ------------------------------------------------------------------------------------------ for the user

    def get_client(self) -> Any:
        """A client of this cluster."""
        return Client(self, asynchronous=self._loop_runner.asynchronous)

    @property
    def dashboard_link(self) -> str | None:
        """The address of the dashboard. There is none yet: None."""
        return None

    def wait_for_workers(self, n_workers: int, timeout: float | None = None) -> Any:
        """Wait for at least ``n_workers`` workers. Raises TimeoutError (WorkerStartTimeoutError) after ``timeout`` seconds."""
        return self.sync(self._wait_for_workers, n_workers, timeout)

    async def _wait_for_workers(self, n_workers: int, timeout_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while (available := self._n_workers()) < n_workers:
            if deadline is not None and loop.time() >= deadline:
                assert timeout_s is not None
                raise WorkerStartTimeoutError(available, n_workers, timeout_s)
            await asyncio.sleep(0.01)

    def _n_workers(self) -> int:
        """How many workers the scheduler has now. Called on the loop."""
        return len(self.scheduler_info["workers"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.scheduler_address or 'no scheduler'}, status: {self.status.value}>"


_clusters: weakref.WeakSet[Cluster] = weakref.WeakSet()


def _close_at_exit() -> None:
    """Close the clusters on the background thread's loop, which still runs. Those of other loops cannot be closed any more."""
    for cluster in list(_clusters):
        if cluster.status in (Status.starting, Status.running) and not cluster._loop_runner.asynchronous:
            with contextlib.suppress(Exception):
                cluster.sync(cluster._close_once, 2.0, callback_timeout=_EXIT_TIMEOUT_S)


def _forget_after_fork() -> None:
    """Called in a forked child: the clusters belong to the parent, and closing them here does nothing."""
    for cluster in list(_clusters):
        cluster.status = Status.closed
    _clusters.clear()


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)

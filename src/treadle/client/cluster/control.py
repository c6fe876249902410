"""What a client does to a cluster as a whole: run functions on its servers, restart and stop it, wait for workers."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

from treadle.client.base import ClientBase, optional_seconds
from treadle.client.cluster.explaining import ExplainingMethods
from treadle.client.cluster.introspection import IntrospectionMethods
from treadle.client.data.moving import MovingMethods
from treadle.client.options import worker_names
from treadle.exceptions import ClosedClientError, CommClosedError, WorkerStartTimeoutError
from treadle.messages.base import FunctionRan
from treadle.messages.client_scheduler import RanOn, Restart, RunOn, Shutdown
from treadle.serialize import by_value
from treadle.serialize.errors import load_error
from treadle.utils.shown import shown


class ClusterMethods(MovingMethods, ExplainingMethods, IntrospectionMethods, ClientBase):
    """The part of ``Client`` that is for administrators."""

    _timeout_s: float
    cluster: Any

    # ------------------------------------------------------------------------------------------ functions

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        workers: Any = None,
        wait: bool = True,
        nanny: bool = False,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> Any:
        """Call a function on all workers (or their nannies) at once, outside the schedule: results by worker address.

        If it has a parameter ``dask_worker`` it gets the worker. Coroutine functions are awaited; ``wait=False`` is for these only,
        and returns None. ``on_error``: ``"raise"`` the first one, ``"return"`` exceptions as results, or ``"ignore"`` them.
        """
        if on_error not in ("raise", "return", "ignore"):
            raise ValueError(f"on_error must be 'raise', 'return' or 'ignore', got {on_error!r}")
        _check_wait(wait)
        if not wait and not asyncio.iscoroutinefunction(function):
            raise ValueError("wait=False is for coroutine functions only")
        payload = by_value.dumps((function, args, kwargs))
        where = "nannies" if nanny else "workers"
        return self.sync(self._run, where, payload, worker_names(workers), wait, on_error)

    async def _run(self, where: str, payload: bytes, workers: list[str] | None, wait: bool, on_error: str) -> dict[str, Any] | None:
        answer: RanOn = await self.session.request(lambda number: RunOn(number, where, payload, workers, wait))
        if not wait:
            return None
        results: dict[str, Any] = {}
        for address, ran in answer.results:
            value, error = _result_of(ran)
            if error is None:
                results[address] = value
            elif on_error == "raise":
                raise error
            elif on_error == "return":
                results[address] = error
        return results

    def run_coroutine(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``run`` of a coroutine function."""
        return self.run(function, *args, **kwargs)

    def run_on_scheduler(self, function: Callable[..., Any], *args: Any, wait: bool = True, **kwargs: Any) -> Any:
        """Call a function in the scheduler's process. If it has a parameter ``dask_scheduler`` it gets the scheduler."""
        _check_wait(wait)
        payload = by_value.dumps((function, args, kwargs))
        return self.sync(self._run_on_scheduler, payload, wait)

    async def _run_on_scheduler(self, payload: bytes, wait: bool) -> Any:
        answer: RanOn = await self.session.request(lambda number: RunOn(number, "scheduler", payload, None, wait))
        for _, ran in answer.results:
            value, error = _result_of(ran)
            if error is not None:
                raise error
            return value
        return None

    # ------------------------------------------------------------------------------------------ workers

    def wait_for_workers(self, n_workers: int, timeout: Any = None) -> Any:
        """Wait until there are that many. Raises WorkerStartTimeoutError (a TimeoutError), ValueError."""
        if not isinstance(n_workers, int) or isinstance(n_workers, bool) or n_workers < 1:
            raise ValueError(f"`n_workers` must be a positive integer. Instead got {n_workers}.")
        return self.sync(self._wait_for_workers, n_workers, optional_seconds(timeout))

    async def _wait_for_workers(self, n_workers: int, timeout_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        pause_s = 0.01
        while True:
            info = await self._scheduler_info()
            running = sum([worker.get("status", "running") == "running" for worker in info["workers"].values()])
            if running >= n_workers:
                return
            if deadline is not None and timeout_s is not None and loop.time() >= deadline:
                raise WorkerStartTimeoutError(running, n_workers, timeout_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.2)

    def restart(self, timeout: Any = None, wait_for_workers: bool = True) -> Any:
        """Cancel all tasks of all clients and restart the workers; those that neither a nanny nor their cluster replaces are removed.

        Raises TimeoutError when they are not back in time (default: four times the time to connect).
        """
        timeout_s = optional_seconds(timeout) or 4 * self._timeout_s
        return self.sync(self._restart, timeout_s, wait_for_workers)

    async def _restart(self, timeout_s: float, wait_for_workers: bool) -> Any:
        await self.session.request(lambda number: Restart(number, timeout_s, wait_for_workers))
        return self

    def shutdown(self) -> Any:
        """Stop the workers and the scheduler for good, also one that has a journal, then close this client."""
        if self.asynchronous:
            return self._on_own_loop(self._shutdown())
        self.sync(self._end_scheduler)
        if self.cluster is not None:
            self.cluster.close()
        return self.close()

    async def _shutdown(self) -> None:
        await self._end_scheduler()
        if self.cluster is not None:
            closing = self.cluster.close()
            if closing is not None:
                await closing
        if self._asynchronous:
            await self.close()

    async def _end_scheduler(self) -> None:
        session = self.session
        try:
            session.send(Shutdown())
            await session.drained(0)
        except ClosedClientError:
            if self.cluster is None:
                raise
        except CommClosedError:
            pass
        await session.ended(self._timeout_s)

    def close(self, timeout: Any = None) -> Any:
        raise NotImplementedError("the client says how it closes")


def _check_wait(wait: Any) -> None:
    if wait is not True and wait is not False:
        raise TypeError(f"wait must be True or False, got {shown(wait)}")


def _result_of(ran: FunctionRan) -> tuple[Any, BaseException | None]:
    if ran.error is not None:
        return None, load_error(ran.error)
    return pickle.loads(ran.payload), None

"""What a client asks of workers and their data: retire and restart workers, replicate and rebalance values."""

from __future__ import annotations

from typing import Any

from treadle.client.base import ClientBase, optional_seconds
from treadle.client.futures import error_of
from treadle.client.options import worker_names
from treadle.client.session.ledger import FINISHED
from treadle.client.waiting import futures_of
from treadle.messages.client_scheduler import Order
from treadle.utils.keys import Key


class MovingMethods(ClientBase):
    """The part of ``Client`` that moves data between workers, and has workers go."""

    _timeout_s: float

    async def _order(self, subject: str, options: dict[str, Any]) -> Any:
        given = {name: value for name, value in options.items() if value is not None}
        return await self.session.request(lambda number: Order(number, subject, given))

    # ------------------------------------------------------------------------------------------ workers

    def retire_workers(
        self,
        workers: Any = None,
        close_workers: bool = True,
        *,
        names: Any = None,
        n: int | None = None,
        memory_ratio: float | None = None,
        minimum: int | None = None,
        target: int | None = None,
        key: Any = None,
        attribute: str = "address",
        remove: bool = True,
        timeout: Any = None,
    ) -> Any:
        """Have workers finish what they execute and hand their values to others, then close them. Returns address -> what it was.

        ``workers``: addresses or names; or ``names``; or ``n`` of them, or as many as leave ``target``; or as many idle ones as leave
        ``memory_ratio`` (2) times the memory in use, and at least ``minimum`` workers. A worker that cannot be emptied stays and is
        not in the answer. Without ``close_workers`` they stay, empty, and get nothing new. Tasks that execute for longer than ``timeout``
        run elsewhere.
        """
        if key is not None or attribute != "address":
            raise NotImplementedError("retire_workers(key=, attribute=) is not there: workers are retired one by one, and named by address")
        if not remove and close_workers:
            raise ValueError("a worker that is closed is removed: leave out remove=False, or give close_workers=False")
        options = {
            "workers": worker_names(workers),
            "names": worker_names(names),
            "n": n,
            "close_workers": close_workers,
            "memory_ratio": memory_ratio,
            "minimum": minimum,
            "target": target,
            "timeout_s": optional_seconds(timeout),
        }
        return self.sync(self._order, "retire_workers", options)

    def restart_workers(self, workers: Any, timeout: Any = None, raise_for_error: bool = True) -> Any:
        """Have the nannies of these workers (addresses or names) start new processes: worker -> ``"OK"``, ``"removed"`` or ``"timed out"``.

        Their values are computed again where they are needed. Raises ValueError for a worker without a nanny, TimeoutError (unless
        not ``raise_for_error``) when some are not back in time (default: four times the time to connect).
        """
        timeout_s = optional_seconds(timeout) or 4 * self._timeout_s
        options = {"workers": worker_names(workers), "timeout_s": timeout_s, "raise_for_error": raise_for_error}
        return self.sync(self._order, "restart_workers", options)

    # ------------------------------------------------------------------------------------------ data

    def replicate(self, futures: Any, n: int | None = None, workers: Any = None, branching_factor: int = 2, **kwargs: Any) -> Any:
        """Have copies of these values on ``n`` of ``workers`` (all by default). Waits for the futures first; returns when it is done.

        A worker that has a value serves at most ``branching_factor`` others with it at a time.
        """
        return self.sync(self._replicate, futures, n, worker_names(workers), branching_factor, **kwargs)

    async def _replicate(self, futures: Any, n: int | None, workers: list[str] | None, branching_factor: int) -> None:
        keys = await self._finished_keys(futures)
        await self._order("replicate", {"keys": keys, "n": n, "workers": workers, "branching_factor": branching_factor})

    def rebalance(self, futures: Any = None, workers: Any = None, **kwargs: Any) -> Any:
        """Move values so that the workers have about the same number of bytes; all values, or those of some futures, which are waited for.

        Raises KeyError when some were lost or could not be moved.
        """
        return self.sync(self._rebalance, futures, worker_names(workers), **kwargs)

    async def _rebalance(self, futures: Any, workers: list[str] | None) -> None:
        keys = None if futures is None else await self._finished_keys(futures)
        await self._order("rebalance", {"keys": keys, "workers": workers})

    async def _finished_keys(self, futures: Any) -> list[Key]:
        """Their keys, when all have finished. Raises what one has failed with."""
        states = [self._own_future(future).state for future in futures_of(futures)]
        await self.session.settled(states)
        for state in states:
            if state.status is not FINISHED:
                error = error_of(state)
                if error is not None:
                    raise error
        return [state.key for state in states]

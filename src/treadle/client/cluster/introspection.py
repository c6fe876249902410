"""Questions about the cluster: ``who_has``, ``has_what``, ``nthreads``, ``processing``, ``nbytes``, ``scheduler_info``."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from treadle.client.base import ClientBase
from treadle.client.cluster.proxy import SchedulerProxy
from treadle.client.options import worker_names
from treadle.client.waiting import futures_of
from treadle.messages.client_scheduler import Query
from treadle.utils.keys import Key, key_from_wire


class _Table(dict[Any, Any]):
    """A dict that shows itself as a table in notebooks."""

    _head: Sequence[str] = ("", "")

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(str(key))}</td><td>{len(values)}</td><td>{escape(', '.join(map(str, values)))}</td></tr>"
            for key, values in self.items()
        )
        return f"<table><tr><th>{self._head[0]}</th><th>Count</th><th>{self._head[1]}</th></tr>{rows}</table>"


class WhoHas(_Table):
    """Key -> addresses of the workers that have its value."""

    _head = ("Key", "Workers")


class HasWhat(_Table):
    """Worker address -> keys of the values that it has."""

    _head = ("Worker", "Keys")


class IntrospectionMethods(ClientBase):
    """The part of ``Client`` that asks; nothing is changed."""

    #: The last answer to ``scheduler_info``.
    _info: dict[str, Any] | None = None

    def _scheduler_proxy(self, address: str) -> SchedulerProxy:
        return SchedulerProxy(
            address,
            {
                "scheduler_info": self._scheduler_info,
                "who_has": self._who_has,
                "has_what": self._has_what,
                "processing": self._processing,
                "nthreads": self._nthreads,
                "nbytes": self._nbytes,
            },
        )

    async def _query(self, subject: str, **options: Any) -> Any:
        return await self.session.request(lambda number: Query(number, subject, options))

    def who_has(self, futures: Any = None, **kwargs: Any) -> Any:
        """Key -> addresses of the workers that have its value; of all keys, or those of some futures."""
        keys = None if futures is None else _keys_of(futures)
        return self.sync(self._who_has, keys, **kwargs)

    async def _who_has(self, keys: list[Key] | None) -> WhoHas:
        answer = await self._query("who_has", keys=keys)
        return WhoHas({key_from_wire(key): tuple(addresses) for key, addresses in answer})

    def has_what(self, workers: Any = None, **kwargs: Any) -> Any:
        """Worker address -> keys of the values that it has."""
        return self.sync(self._has_what, worker_names(workers), **kwargs)

    async def _has_what(self, workers: list[str] | None) -> HasWhat:
        answer = await self._query("has_what", workers=workers)
        return HasWhat({address: tuple([key_from_wire(key) for key in keys]) for address, keys in answer})

    def processing(self, workers: Any = None) -> Any:
        """Worker address -> keys of the tasks that it was given and has not finished."""
        return self.sync(self._processing, worker_names(workers))

    async def _processing(self, workers: list[str] | None) -> dict[str, tuple[Key, ...]]:
        answer = await self._query("processing", workers=workers)
        return {address: tuple([key_from_wire(key) for key in keys]) for address, keys in answer}

    def nthreads(self, workers: Any = None) -> Any:
        """Worker address -> number of its threads."""
        return self.sync(self._nthreads, worker_names(workers))

    async def _nthreads(self, workers: list[str] | None) -> dict[str, int]:
        return await self._query("nthreads", workers=workers)  # type: ignore[no-any-return]

    ncores = nthreads

    def nbytes(self, keys: Any = None, summary: bool = True) -> Any:
        """Bytes in memory: by key prefix, or if not ``summary`` by key."""
        return self.sync(self._nbytes, None if keys is None else list(keys), summary)

    async def _nbytes(self, keys: list[Key] | None, summary: bool) -> dict[Key, int]:
        answer = await self._query("nbytes", keys=keys, summary=summary)
        return {key_from_wire(key): nbytes for key, nbytes in answer}

    def scheduler_info(self, n_workers: int = -1, **kwargs: Any) -> Any:
        """The scheduler's view of itself and of its workers, as a dict. An asynchronous client gets its last one at once."""
        if self.asynchronous:
            return self._info or {}
        return self.sync(self._scheduler_info, n_workers)

    async def _scheduler_info(self, n_workers: int = -1) -> dict[str, Any]:
        info: dict[str, Any] = await self._query("scheduler_info", n_workers=n_workers)
        self._info = info
        return info

    def _cached_info(self) -> dict[str, Any] | None:
        """For representations: asked anew where that may block, else the last one."""
        if not self.asynchronous:
            try:
                self.sync(self._scheduler_info, 0, callback_timeout=2)
            except Exception:
                pass
        return self._info

    def story(self, *keys: Any) -> Any:
        """The scheduler's log of what happened to these keys."""
        return self.sync(self._query, "story", keys=[getattr(key, "key", key) for key in keys])


def _keys_of(futures: Any) -> list[Key]:
    """Keys of futures and collections; keys stand for themselves."""
    if isinstance(futures, (list, tuple, set)) and futures and not futures_of(futures):
        return list(futures)
    return list(dict.fromkeys([future.key for future in futures_of(futures)]))

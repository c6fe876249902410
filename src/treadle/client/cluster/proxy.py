"""``client.scheduler``: the scheduler as an object with coroutine methods, for libraries that ask it questions by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from treadle.client.options import worker_names
from treadle.utils.keys import Key

#: A method of IntrospectionMethods by that name without its underscore.
Ask = Callable[..., Awaitable[Any]]


class SchedulerProxy:
    """Questions only: ``await client.scheduler.who_has(keys=[...])``. ``address`` is where the scheduler listens.

    A synchronous program calls them through ``client.sync(client.scheduler.who_has, keys=[...])``.
    """

    def __init__(self, address: str, ask: dict[str, Ask]) -> None:
        self.address = address
        self._ask = ask

    async def identity(self) -> dict[str, Any]:
        """What ``Client.scheduler_info`` says."""
        return await self._ask["scheduler_info"]()  # type: ignore[no-any-return]

    async def who_has(self, keys: list[Key] | None = None) -> dict[Key, tuple[str, ...]]:
        """Key -> addresses of the workers that have its value."""
        return await self._ask["who_has"](None if keys is None else list(keys))  # type: ignore[no-any-return]

    async def has_what(self, workers: Any = None) -> dict[str, tuple[Key, ...]]:
        """Worker address -> keys of the values that it has."""
        return await self._ask["has_what"](worker_names(workers))  # type: ignore[no-any-return]

    async def processing(self, workers: Any = None) -> dict[str, tuple[Key, ...]]:
        """Worker address -> keys of the tasks that it was given and has not finished."""
        return await self._ask["processing"](worker_names(workers))  # type: ignore[no-any-return]

    async def ncores(self, workers: Any = None) -> dict[str, int]:
        """Worker address -> number of its threads."""
        return await self._ask["nthreads"](worker_names(workers))  # type: ignore[no-any-return]

    async def nbytes(self, keys: list[Key] | None = None, summary: bool = True) -> dict[Key, int]:
        """Bytes in memory: by key prefix, or if not ``summary`` by key."""
        return await self._ask["nbytes"](None if keys is None else list(keys), summary)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        known = [method for method in dir(type(self)) if not method.startswith("_")]
        raise AttributeError(f"treadle's scheduler cannot be asked for {name!r} by name; it knows {', '.join(known)}")

    def __repr__(self) -> str:
        return f"<SchedulerProxy {self.address!r}>"

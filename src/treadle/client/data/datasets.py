"""Datasets: objects with futures in them that a client gives a name to, for other clients, and for when it is gone itself."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any, Final

from treadle.client.base import ClientBase
from treadle.client.current import entered
from treadle.client.waiting import futures_of
from treadle.messages.client_scheduler import PublishData, Query, UnpublishData
from treadle.serialize import by_value
from treadle.utils.keys import Key, is_key, key_from_wire

_NO_DEFAULT: Final = object()


class DatasetMethods(ClientBase):
    """The part of ``Client`` that publishes datasets."""

    @property
    def datasets(self) -> Datasets:
        """The published datasets, as a mapping of their names."""
        return Datasets(self)

    def publish_dataset(self, *args: Any, name: Any = None, override: bool = False, **kwargs: Any) -> Any:
        """Give collections, futures, or what has some in it, a name: ``publish_dataset(data, name="x")``, ``publish_dataset(x=data)``.

        The scheduler keeps their keys until somebody unpublishes the name, also when this client is gone. Names are keys: text, numbers,
        tuples of these. Raises KeyError when the name is taken, unless ``override``; TypeError, ValueError for anything that is no name.
        """
        given = dict(kwargs)
        if name is not None:
            if len(args) != 1 or kwargs:
                raise ValueError("with name= there is one object to be published: publish_dataset(data, name='name')")
            given = {name: args[0]}
        elif args or not kwargs:
            raise ValueError("a dataset needs a name: publish_dataset(data, name='name'), or publish_dataset(name=data)")
        return self.sync(self._publish, given, override)

    async def _publish(self, given: dict[Any, Any], override: bool) -> None:
        session = self.session
        for name, data in given.items():
            _check_name(name)
            futures = futures_of(data, client=self)
            body = by_value.dumps(data)
            with session.lock:
                ids = [session.ledger.own_id(future.state) for future in futures if future.client is self]
            await session.request(lambda number, name=name, body=body, ids=ids: PublishData(number, name, body, ids, override))  # type: ignore[misc]

    def get_dataset(self, name: Any, default: Any = _NO_DEFAULT, **kwargs: Any) -> Any:
        """What is published under that name, or a list for a list of names. Raises KeyError for an unknown one without a ``default``."""
        return self.sync(self._get_dataset, name, default, **kwargs)

    async def _get_dataset(self, name: Any, default: Any) -> Any:
        if isinstance(name, list):
            return [await self._get_dataset(one, default) for one in name]
        _check_name(name)
        found = await self.session.request(lambda number: Query(number, "dataset", {"name": name}))
        if found:
            with entered(self):
                return pickle.loads(found[0])
        if default is _NO_DEFAULT:
            raise KeyError(f"there is no dataset {name!r}; there are {list(await self._list_datasets()) or 'none'}")
        return default

    def list_datasets(self, **kwargs: Any) -> Any:
        """The names of what is published, oldest first, as a tuple."""
        return self.sync(self._list_datasets, **kwargs)

    async def _list_datasets(self) -> tuple[Key, ...]:
        answer = await self.session.request(lambda number: Query(number, "datasets", {}))
        return tuple([key_from_wire(name) for name in answer])

    def unpublish_dataset(self, name: Any, **kwargs: Any) -> Any:
        """Take the name back: keys that nobody else wants are released. Raises KeyError when nothing is called so."""
        return self.sync(self._unpublish, name, **kwargs)

    async def _unpublish(self, name: Any) -> None:
        _check_name(name)
        await self.session.request(lambda number: UnpublishData(number, name))


class Datasets(MutableMapping[Any, Any]):
    """Name -> dataset. An asynchronous client has the coroutines ``get_dataset``, ``list_datasets`` and so on, and ``async for`` here."""

    def __init__(self, client: DatasetMethods) -> None:
        self._client = client

    def _blocking(self) -> DatasetMethods:
        if self._client.asynchronous:
            raise TypeError(
                "client.datasets cannot wait in an asynchronous client: await client.get_dataset(name), client.list_datasets(), ..."
            )
        return self._client

    def __getitem__(self, name: Any) -> Any:
        return self._blocking().get_dataset(name)

    def __setitem__(self, name: Any, data: Any) -> None:
        self._blocking().publish_dataset(data, name=name)

    def __delitem__(self, name: Any) -> None:
        self._blocking().unpublish_dataset(name)

    def __contains__(self, name: object) -> bool:
        return name in self._blocking().list_datasets()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._blocking().list_datasets())

    def __len__(self) -> int:
        return len(self._blocking().list_datasets())

    async def __aiter__(self) -> AsyncIterator[Any]:
        for name in await self._client._list_datasets():
            yield name


def _check_name(name: Any) -> None:
    if not is_key(name):
        raise TypeError(f"{name!r} cannot be the name of a dataset: take text, a number, or a tuple of these")

"""The values that a worker keeps, by the user's keys: in a dict, or in the mapping that the user gave as ``Worker(data=...)``."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Collection, Iterable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

logger = logging.getLogger(__name__)


def make_mapping(data: Any, local_directory: str) -> MutableMapping[Any, Any]:
    """The mapping for ``Worker(data=...)``: None, an empty mapping, a callable that makes one, or (callable, kwargs).

    A callable gets ``worker_local_directory`` if its signature names it. Raises TypeError for any other ``data``,
    ValueError for a mapping that is not empty.
    """
    if data is None:
        return {}
    if isinstance(data, tuple) and len(data) == 2 and callable(data[0]):
        data = _made_by(data[0], data[1], local_directory)
    elif not isinstance(data, MutableMapping) and callable(data):
        data = _made_by(data, {}, local_directory)
    if not isinstance(data, MutableMapping):
        raise TypeError(f"data must be a mutable mapping, or a callable that returns one, or (callable, kwargs); got {data!r}")
    if len(data):
        raise ValueError(f"the mapping given as data must be empty, but it has {len(data)} entries; give each worker a mapping of its own")
    return data


def _made_by(factory: Callable[..., Any], kwargs: dict[str, Any], local_directory: str) -> Any:
    try:
        wants_directory = "worker_local_directory" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        wants_directory = False
    if wants_directory:
        return factory(worker_local_directory=local_directory, **kwargs)
    return factory(**kwargs)


class Store:
    """Values by key, used by the loop's thread and by the threads that execute tasks."""

    def __init__(self, mapping: MutableMapping[Any, Any]) -> None:
        self.mapping = mapping
        #: Fetched values that the user's mapping refused, kept because tasks need them.
        self._refused: dict[Any, Any] = {}
        #: How many ids, besides the first, stand for the value of a key in the core. A task that is forgotten and submitted again,
        #: or a value that is handed over again, has a new id, and the key may be put again before the old id is dropped.
        self._more_ids: dict[Any, int] = {}
        # A dict is safe to use from several threads; other mappings need not be.
        self._plain = type(mapping) is dict
        self._lock: AbstractContextManager[Any] = nullcontext() if self._plain else threading.RLock()

    def get(self, key: Any) -> Any:
        """The value. Raises KeyError when it is not in the store, and what the user's mapping raises."""
        with self._lock:
            try:
                return self.mapping[key]
            except KeyError:
                if key in self._refused:
                    return self._refused[key]
                raise

    def collect(self, keys: list[Any]) -> dict[Any, Any]:
        """Key -> value. Raises as ``get``."""
        if self._plain:
            mapping = self.mapping
            return {key: mapping[key] for key in keys}
        return {key: self.get(key) for key in keys}

    def _is_here(self, key: Any) -> bool:
        return key in self.mapping or key in self._refused

    def _count(self, key: Any, was_here: bool) -> None:
        """Note that one more id stands for the key, whose value was put."""
        if was_here:
            self._more_ids[key] = self._more_ids.get(key, 0) + 1
        elif self._more_ids:
            # The mapping had lost the value, so the earlier ids stand for nothing.
            self._more_ids.pop(key, None)

    def _still_held(self, key: Any) -> bool:
        """Note that one id less stands for the key; whether another one still does."""
        count = self._more_ids.get(key)
        if count is None:
            return False
        if count > 1:
            self._more_ids[key] = count - 1
        else:
            del self._more_ids[key]
        return True

    def put(self, key: Any, value: Any) -> None:
        """Keep a value. Raises what the user's mapping raises."""
        with self._lock:
            was_here = self._is_here(key)
            self.mapping[key] = value
            self._count(key, was_here)

    def put_all(self, entries: Collection[tuple[Any, Any]]) -> bool:
        """Put (key, value) pairs if nothing can go wrong; else return False with nothing done."""
        if not self._plain:
            return False
        mapping = self.mapping
        before = len(mapping)
        if not self._more_ids and mapping.keys().isdisjoint([entry[0] for entry in entries]):
            mapping.update(entries)
            if len(mapping) == before + len(entries):
                return True
            # A key may occur twice, under two ids.
            once: set[Any] = set()
            for key, _ in entries:
                if key in once:
                    self._count(key, True)
                once.add(key)
        else:
            for key, value in entries:
                self.put(key, value)
        return True

    def put_anyway(self, key: Any, value: Any, error: Exception) -> None:
        """Keep in memory a value that the user's mapping refused with ``error``."""
        logger.warning("the mapping given as data= refuses the value of %r (%r); the worker keeps it in memory", key, error)
        with self._lock:
            was_here = self._is_here(key)
            self._refused[key] = value
            self._count(key, was_here)

    def drop_all(self, keys: Iterable[Any]) -> None:
        """Never raises."""
        if self._plain and not self._more_ids:
            pop = self.mapping.pop
            for key in keys:
                pop(key, None)
        else:
            for key in keys:
                self.drop(key)

    def drop(self, key: Any) -> None:
        """Never raises."""
        with self._lock:
            if self._more_ids and self._still_held(key):
                return
            self._refused.pop(key, None)
            try:
                del self.mapping[key]
            except KeyError:
                pass
            except Exception as error:
                logger.warning("the mapping given as data= cannot delete %r: %r", key, error)

    def clear(self) -> None:
        """Drop everything. Never raises."""
        with self._lock:
            self._refused.clear()
            self._more_ids.clear()
            try:
                self.mapping.clear()
            except Exception as error:
                logger.warning("the mapping given as data= cannot be cleared: %r", error)

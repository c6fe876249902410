"""Pickle by value what other processes cannot import: cloudpickle, and what cloudpickle leaves out."""

from __future__ import annotations

import functools
import io
import sys
from _thread import LockType
from collections.abc import Callable
from typing import Any

import cloudpickle

from treadle.serialize.xarray_files import reduce_lock, reduce_store

_LruCache = type(functools.lru_cache(int))


def dumps(value: Any, *, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """As ``cloudpickle.dumps`` with protocol 5; a ``functools.cache`` travels with the function it wraps, and empty."""
    with io.BytesIO() as file:
        _Pickler(file, protocol=5, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is _LruCache and _is_only_here(obj):
            parameters = obj.cache_parameters()
            # In two steps, because a recursive function refers to its own cached version.
            return _cached, (parameters["maxsize"], parameters["typed"]), obj.__wrapped__, None, None, _fill
        if "xarray.backends" in sys.modules:
            found = reduce_lock(obj) if type(obj) is LockType else reduce_store(obj)
            if found is not None:
                return found
        return super().reducer_override(obj)


def _is_only_here(function: Any) -> bool:
    """Whether other processes cannot import the function by its name, or are not supposed to."""
    module = getattr(function, "__module__", None) or ""
    if module in ("__main__", "__mp_main__") or "<" in getattr(function, "__qualname__", "<"):
        return True
    return any(module == name or module.startswith(name + ".") for name in cloudpickle.list_registry_pickle_by_value())


class _Delegate:
    """Calls a function that is set later."""

    __slots__ = ("function",)
    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _cached(maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(_Delegate())


def _fill(cached: Any, function: Callable[..., Any]) -> None:
    cached.__wrapped__.function = function
    functools.update_wrapper(cached, function)

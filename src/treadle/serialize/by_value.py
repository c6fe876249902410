"""What other processes cannot import, pickled by value: cloudpickle, and what it leaves out."""

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
    """As ``cloudpickle.dumps`` with protocol 5; functions under ``functools.cache`` travel with what they wrap, and an empty cache."""
    with io.BytesIO() as file:
        _Pickler(file, protocol=5, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is _LruCache and _is_only_here(obj):
            parameters = obj.cache_parameters()
            # In two steps: the function may call itself by the name that the cache has.
            return _cached, (parameters["maxsize"], parameters["typed"]), obj.__wrapped__, None, None, _fill
        if "xarray.backends" in sys.modules:
            found = reduce_lock(obj) if type(obj) is LockType else reduce_store(obj)
            if found is not None:
                return found
        return super().reducer_override(obj)


def _is_only_here(function: Any) -> bool:
    """Whether others cannot import it by its name, or shall not."""
    module = getattr(function, "__module__", None) or ""
    if module in ("__main__", "__mp_main__") or "<" in getattr(function, "__qualname__", "<"):
        return True
    return any(module == name or module.startswith(name + ".") for name in cloudpickle.list_registry_pickle_by_value())


class _Delegate:
    """Calls a function that is known later."""

    __slots__ = ("function",)
    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _cached(maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(_Delegate())


def _fill(cached: Any, function: Callable[..., Any]) -> None:
    cached.__wrapped__.function = function
    functools.update_wrapper(cached, function)

"""``Client.run``: call the function of a ``RunFunction`` in the server that received it."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from typing import Any

from treadle.messages.base import RunFunction, TaskError
from treadle.serialize import by_value
from treadle.serialize.errors import dump_error


async def run_function(request: RunFunction, given: Mapping[str, Any], max_error_length: int = 10_000) -> tuple[bytes, TaskError | None]:
    """Call the function on the event loop, and await it if it is a coroutine function: (the pickled result, its error or None).

    The function also gets those of ``given``, such as ``{"dask_worker": worker}``, that its signature names and the caller did
    not pass.
    """
    try:
        function, args, kwargs = pickle.loads(request.payload)
        result = function(*args, **_wanted(function, given, kwargs), **kwargs)
        if inspect.isawaitable(result):
            result = await result
        return _dumps(result), None
    except Exception as error:
        return b"", dump_error(error, max_error_length)


def _wanted(function: Any, given: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return {}
    return {name: value for name, value in given.items() if name in parameters and name not in kwargs}


def _dumps(value: Any) -> bytes:
    try:
        data = pickle.dumps(value, 5)
        if b"__main__" not in data:
            return data
    except Exception:
        pass
    return by_value.dumps(value)

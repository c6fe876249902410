"""Functions and the payloads of tasks <-> bytes.

The payload of a call is a pickle of the tuple ``args`` when there are no keyword arguments, else of the list ``[args, kwargs]``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final

import cloudpickle

from treadle.serialize.values import PROTOCOL, Buffer, dumps, loads, travels_by_value

_PLAIN: Final = frozenset([int, float, str, bytes, bool, type(None)])
#: Call it directly: the hot path of ``map``.
_pickle = pickle.dumps


def dumps_function(function: Callable[..., Any]) -> bytes:
    """By reference where the other side can import it, by value else. Raises TypeError with its name and the reason."""
    try:
        data = pickle.dumps(function, PROTOCOL)
        if not travels_by_value(data):
            return data
    except Exception:
        pass  # lambdas and closures
    try:
        return bytes(cloudpickle.dumps(function, protocol=PROTOCOL))
    except Exception as error:
        name = getattr(function, "__qualname__", None) or repr(function)
        try:
            dumps(function)
        except TypeError as found:
            raise TypeError(f"the function {name} cannot be sent to workers: {found}") from error
        raise TypeError(f"the function {name} cannot be sent to workers: {error}") from error


def loads_function(data: Buffer) -> Callable[..., Any]:
    """Raises what unpickling raises, TypeError when it is nothing to call."""
    function = pickle.loads(data)
    if not callable(function):
        raise TypeError(f"a function was expected, got {type(function).__qualname__}")
    return function  # type: ignore[no-any-return]


def dumps_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, list[Buffer]]:
    """The payload of a call, and its large buffers. Raises TypeError that says which argument cannot be pickled."""
    if kwargs:
        return _dump_call([args, kwargs], args, kwargs)
    for argument in args:
        if type(argument) not in _PLAIN:
            return _dump_call(args, args, kwargs)
    return _pickle(args, 5), []


def _dump_call(payload: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, list[Buffer]]:
    try:
        return dumps(payload)
    except TypeError as error:
        failure = error
    for name, argument in [*enumerate(args), *kwargs.items()]:
        try:
            dumps(argument)
        except TypeError as error:
            raise TypeError(f"the argument {name!r} cannot be sent to workers: {error}") from error
    raise failure


def load_call(
    payload: Buffer, buffers: Sequence[Buffer], function: Callable[..., Any]
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The function, its arguments and its keyword arguments. Raises what unpickling raises."""
    value = pickle.loads(payload, buffers=buffers) if buffers else pickle.loads(payload)
    if type(value) is tuple:
        return function, value, {}
    args, kwargs = value
    return function, args, kwargs


def dumps_node(node: Any) -> tuple[bytes, list[Buffer]]:
    """A graph node (``dask._task_spec.GraphNode``). Raises TypeError that says what in it cannot be pickled."""
    return dumps(node)


def load_node(payload: Buffer, buffers: Sequence[Buffer]) -> Any:
    """The graph node. Raises what unpickling raises."""
    return loads(payload, buffers)

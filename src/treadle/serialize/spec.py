"""Functions and the payloads of tasks <-> bytes.

The payload of a call is one of

- nothing at all: the arguments are the values of the task's dependencies, in order;
- a pickle of the tuple ``args``: there are no keyword arguments and no dependencies;
- a pickle of the list ``[args, kwargs]``: there are no dependencies;
- a pickle of the list ``[parts, parts by name or None, 0]``, see ``treadle.serialize.nodes``.

A task whose function is number 0 is a pickled graph node instead.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final

from treadle.serialize import by_value
from treadle.serialize.nodes import evaluate, evaluate_named, is_direct
from treadle.serialize.values import PROTOCOL, Buffer, dumps, loads, travels_by_value

_PLAIN: Final = frozenset([int, float, str, bytes, bool, type(None)])
#: Called directly on the hot path of ``map``.
_pickle = pickle.dumps


def dumps_function(function: Callable[..., Any]) -> bytes:
    """Pickle a function by reference if the other side can import it, else by value. Raises TypeError with its name and the reason."""
    try:
        data = pickle.dumps(function, PROTOCOL)
        if not travels_by_value(data):
            return data
    except Exception:
        pass  # lambdas and closures
    try:
        return by_value.dumps(function)
    except Exception as error:
        name = getattr(function, "__qualname__", None) or repr(function)
        try:
            dumps(function)
        except TypeError as found:
            raise TypeError(f"the function {name} cannot be sent to workers: {found}") from error
        raise TypeError(f"the function {name} cannot be sent to workers: {error}") from error


class Unshared:
    """A function that a call could change: it is unpickled anew for each call. A call raises what unpickling and the function raise."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __reduce__(self) -> tuple[Any, ...]:
        return Unshared, (self._body,)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return loads_function(self._body)(*args, **kwargs)


def dumps_unshared(body: bytes) -> bytes:
    """The pickle of an ``Unshared`` function; ``body`` is the pickle of the function itself."""
    return pickle.dumps(Unshared(body), PROTOCOL)


def loads_function(data: Buffer) -> Callable[..., Any]:
    """The function. Raises what unpickling raises, and TypeError when the object is not callable."""
    function = pickle.loads(data)
    if not callable(function):
        raise TypeError(f"a function was expected, got {type(function).__qualname__}")
    return function  # type: ignore[no-any-return]


def dumps_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, list[Buffer]]:
    """The payload of a call and its large buffers. Raises TypeError that names the argument that cannot be pickled."""
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


def dumps_parts(parts: list[Any], named: dict[str, Any] | None, count: int) -> tuple[bytes, list[Buffer]]:
    """The payload of a call that needs the values of ``count`` dependencies. Raises TypeError that says what cannot be pickled."""
    if not count:
        return (
            dumps_call(tuple(evaluate(parts, ())), evaluate_named(named, ()) if named else {})
            if _flat(parts, named)
            else dumps([parts, named, 0])
        )
    if not named:
        if is_direct(parts, count):
            return b"", []
        for part in parts:
            if type(part) is list or (type(part) is tuple and type(part[0]) not in _PLAIN):
                return dumps([parts, None, 0])
        return _pickle([parts, None, 0], 5), []
    return dumps([parts, named, 0])


def _flat(parts: list[Any], named: dict[str, Any] | None) -> bool:
    """Whether all parts are constants."""
    return all([type(part) is tuple for part in parts]) and (not named or all([type(part) is tuple for part in named.values()]))


def call_with(function: Callable[..., Any], payload: Buffer, buffers: Sequence[Buffer], values: Sequence[Any]) -> Any:
    """Call ``function`` with the arguments of the payload; ``values`` are those of the task's dependencies, in order.

    Raises what unpickling and the function raise.
    """
    if not payload:
        return function(*values)
    loaded = pickle.loads(payload, buffers=buffers) if buffers else pickle.loads(payload)
    if type(loaded) is tuple:
        return function(*loaded)
    if len(loaded) == 2:
        return function(*loaded[0], **loaded[1])
    parts, named, _ = loaded
    if named:
        return function(*evaluate(parts, values), **evaluate_named(named, values))
    return function(*evaluate(parts, values))


def dumps_node(node: Any) -> tuple[bytes, list[Buffer]]:
    """The payload of a graph node (``dask._task_spec.GraphNode``) and its buffers. Raises TypeError that names what cannot be pickled."""
    return dumps(node)


def load_node(payload: Buffer, buffers: Sequence[Buffer]) -> Any:
    """The graph node. Raises what unpickling raises."""
    return loads(payload, buffers)

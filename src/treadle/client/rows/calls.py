"""One call -> rows: its payload, what it depends on, and its large arguments as rows of their own. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dask._task_spec import DataNode, Dict, GraphNode, List, Set, Task, TaskRef, Tuple

from treadle.client.futures import Future
from treadle.client.rows.keys import LARGE_BYTES, is_plain, token_of
from treadle.serialize.containers import KINDS, emptied, refilled
from treadle.serialize.nodes import part_of, parts_of
from treadle.serialize.sizes import sizeof
from treadle.serialize.spec import dumps_call, dumps_node, dumps_parts
from treadle.utils.keys import Key


class Constant(NamedTuple):
    """A large argument: data of its own, pickled once."""

    key: Key
    payload: bytes
    buffers: list[Any]


class Call(NamedTuple):
    """A row to be."""

    payload: bytes
    buffers: list[Any]
    #: What it depends on, in the order that the payload speaks of: futures, and keys of ``constants``.
    needs: list[Future | Key]
    constants: list[Constant]


class Constants:
    """The large arguments of one submission. The same object is pickled once."""

    def __init__(self) -> None:
        #: By identity; the values are kept, so that no other object gets the same.
        self._found: dict[int, tuple[Any, Constant]] = {}
        #: Futures of those that were sent, so that they stay until all rows that need them were sent.
        self.held: dict[Key, Future] = {}

    def __contains__(self, value: Any) -> bool:
        return id(value) in self._found

    def constant(self, value: Any) -> Constant:
        found = self._found.get(id(value))
        if found is None:
            key = f"{type(value).__name__}-{token_of(value)}"
            payload, buffers = dumps_node(DataNode(key, value))
            found = self._found[id(value)] = (value, Constant(key, payload, buffers))
        return found[1]


def prepare(key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any], constants: Constants) -> Call:
    """Raises TypeError that names the key when something cannot be pickled."""
    try:
        if not kwargs:
            if is_plain(args):
                return Call(dumps_call(args, {})[0], [], [], [])
            call = _of_futures(args)
            if call is not None:
                return call
        return _prepare(args, kwargs, constants)
    except TypeError as error:
        raise TypeError(f"task {key!r} cannot be sent to the cluster: {error}") from error
    except RecursionError as error:  # what newer versions of Python can pickle may still be too deep to be looked through
        raise TypeError(f"task {key!r} cannot be sent to the cluster: an argument is nested too deeply") from error


def _of_futures(args: tuple[Any, ...]) -> Call | None:
    """A call with nothing but futures and plain values; None for any other."""
    places: dict[Key, int] = {}
    futures: list[Future | Key] = []
    parts: list[Any] = []
    for value in args:
        if type(value) is Future:
            place = places.setdefault(value.key, len(places))
            if place == len(futures):
                futures.append(value)
            parts.append(place)
        elif is_plain(value):
            parts.append((value,))
        else:
            return None
    payload, buffers = dumps_parts(parts, None, len(futures))
    return Call(payload, buffers, futures, [])


def _prepare(args: tuple[Any, ...], kwargs: Mapping[str, Any], constants: Constants) -> Call:
    futures: list[Future] = []
    own: list[Constant] = []

    def place(value: Any) -> Any:
        """What stands for an argument in the row."""
        if is_plain(value):
            return value
        if value not in constants:
            count = len(futures)
            find_futures(value, futures)
            if len(futures) > count or sizeof(value) <= LARGE_BYTES:
                return value
        constant = constants.constant(value)
        own.append(constant)
        return TaskRef(constant.key)

    placed = tuple([place(value) for value in args])
    named = {name: place(value) for name, value in kwargs.items()}
    if not futures and not own:
        payload, buffers = dumps_call(placed, named)
        return Call(payload, buffers, [], [])
    places: dict[Key, int] = {}
    parts = parts_of([node_of(value) for value in placed], places)
    parts_by_name = {name: part_of(node_of(value), places) for name, value in named.items()}
    by_key: dict[Key, Future | Key] = {constant.key: constant.key for constant in own}
    by_key.update({future.key: future for future in futures})
    payload, buffers = dumps_parts(parts, parts_by_name, len(places))
    return Call(payload, buffers, [by_key[key] for key in places], own)


def find_futures(value: Any, found: list[Future], inside: tuple[int, ...] = ()) -> None:
    """Add the futures in nested lists, tuples, sets and dicts, in order. ``inside``: ids of what contains ``value``."""
    if isinstance(value, Future):
        found.append(value)
    elif isinstance(value, KINDS) and id(value) not in inside:
        inside = (*inside, id(value))
        for item in value.values() if isinstance(value, dict) else value:
            find_futures(item, found, inside)


def node_of(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """The value with references to its futures' results: a graph node, or the value itself where there are none.

    Containers keep their types. Raises TypeError for one that contains itself beside a future.
    """
    if isinstance(value, TaskRef):
        return TaskRef(value.key)
    if not isinstance(value, KINDS):
        return value
    if id(value) in inside:
        futures: list[Future] = []
        find_futures(value, futures)
        if futures:
            kind = type(value).__name__
            raise TypeError(f"a {kind} that contains itself, and futures, cannot be an argument: give it values, or no cycle")
        return value
    inside = (*inside, id(value))
    if isinstance(value, dict):
        nodes: Any = {key: node_of(item, inside) for key, item in value.items()}
        if not any([isinstance(node, (GraphNode, TaskRef)) for node in nodes.values()]):
            return value
        built: Any = Dict(nodes)
    else:
        nodes = [node_of(item, inside) for item in value]
        if not any([isinstance(node, (GraphNode, TaskRef)) for node in nodes]):
            return value
        built = List(*nodes)
    if type(value) is dict or type(value) is list:
        return built
    if type(value) is tuple or type(value) is set:
        return Tuple(*nodes) if type(value) is tuple else Set(*nodes)
    return Task(None, refilled, emptied(value), built)


def check_callable(func: Callable[..., Any]) -> None:
    if not callable(func):
        raise TypeError(f"only a callable can be submitted, got {type(func).__name__}: {func!r:.100}")

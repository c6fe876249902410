"""Nodes of one graph -> rows: a function that many of them share is sent once, and each brings only what is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from dask._task_spec import Alias, DataNode, Task

from treadle.client.rows.functions import Functions, KnownFunction, is_importable
from treadle.serialize import nodes
from treadle.serialize.nodes import Renamed, Subgraph, Unusual, is_fused, part_of, parts_of
from treadle.serialize.spec import dumps_call, dumps_node, dumps_parts
from treadle.utils.keys import Key

#: A callable that is no importable function is sent on its own when at least so many tasks share it.
SHARED_BY: Final = 3


class Row(NamedTuple):
    #: None: the payload is the pickled node.
    function: KnownFunction | None
    payload: bytes
    buffers: list[Any]
    #: Keys, each once, in the order that the payload speaks of.
    dependencies: Iterable[Key]


class Encoding:
    """Of one graph. ``lock`` guards ``functions``; users' values are pickled without it.

    ``functions.forget_own(encoding.own)`` when no more rows come.
    """

    def __init__(
        self, functions: Functions, lock: AbstractContextManager[Any], graph: Iterable[Any], names: Mapping[Key, Key] | None = None
    ) -> None:
        self._functions = functions
        #: What nodes are called outside of the graph, where that is something else.
        self._names: Mapping[Key, Key] = names or {}
        self._lock = lock
        #: What was made for this graph alone.
        self.own: list[KnownFunction] = []
        #: By identity of the callable, or of what a fused task is made of; the nodes keep these alive.
        self._known: dict[Any, KnownFunction | None] = {}
        self._uses: dict[Any, int] = {}
        uses = self._uses
        for node in graph:
            if type(node) is Task:
                identity = _identity(node)
                uses[identity] = uses.get(identity, 0) + 1

    def row(self, node: Any) -> Row:
        """Raises TypeError that says what in the node cannot be pickled."""
        kind = type(node)
        if kind is Alias:
            return Row(self._importable(nodes.alias), b"", [], (node.target,))
        if kind is DataNode:
            return Row(self._importable(nodes.alias), *dumps_call((node.value,), {}), ())
        if kind is Task:
            try:
                return self._task(node)
            except Unusual:
                pass
        # Only here does the payload name what it depends on.
        renamed = {self._names[key]: key for key in node.dependencies if key in self._names}
        return Row(None, *dumps_node(Renamed(node, renamed) if renamed else node), node.dependencies)

    def _task(self, node: Task) -> Row:
        identity = _identity(node)
        if identity in self._known:
            known = self._known[identity]
        else:
            known = self._known[identity] = self._find(node, identity)
        args = node.args
        if known is None:
            known = self._importable(nodes.call)
            args = (node.func, *args)
        elif known.is_subgraph:
            args = args[3:]
        places: dict[Key, int] = {}
        parts = parts_of(args, places)
        named = {name: part_of(value, places) for name, value in node.kwargs.items()} if node.kwargs else None
        if len(places) != len(node.dependencies):
            raise Unusual(node)
        payload, buffers = dumps_parts(parts, named, len(places))
        return Row(known, payload, buffers, places)

    def _find(self, node: Task, identity: Any) -> KnownFunction | None:
        """Its function as others have it too; None: it brings its own."""
        shared = self._uses.get(identity, 0) >= SHARED_BY
        if type(identity) is tuple:
            if shared:
                known = self._make(Subgraph(*node.args[:3]))
                known.is_subgraph = True
                return known
            # What it is made of travels as its arguments.
            return self._importable(node.func)
        if is_importable(node.func):
            return self._importable(node.func)
        return self._make(node.func) if shared else None

    def _make(self, function: Callable[..., Any]) -> KnownFunction:
        with self._lock:
            known = self._functions.make_own(function)
        self.own.append(known)
        return known

    def _importable(self, function: Callable[..., Any]) -> KnownFunction:
        known = self._known.get(id(function))
        if known is None:
            with self._lock:
                known = self._known[id(function)] = self._functions.find(function)
        return known


def _identity(node: Task) -> Any:
    """The same for tasks that may share a function: a tuple for fused ones, else an int."""
    if is_fused(node):
        inner, outkey, inkeys = node.args[:3]
        return (id(inner), outkey, inkeys)
    return id(node.func)

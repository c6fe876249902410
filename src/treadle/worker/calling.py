"""Compute a task's value from its specification: a function is unpickled once, a payload at each call."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

from treadle.messages.local import Execute
from treadle.serialize.spec import call_with, load_node, loads_function
from treadle.worker.data.store import Store

_loads = pickle.loads


class DependencyGone(Exception):
    """A value that the task needs is no longer in the store; nothing of the task has run."""


class FunctionTable:
    """Functions by id. Each is unpickled at its first use."""

    def __init__(self) -> None:
        self._bodies: dict[int, bytes] = {}
        self._functions: dict[int, Callable[..., Any]] = {}
        self._lock = threading.Lock()

    def learn(self, ids: Sequence[int], bodies: Sequence[bytes]) -> None:
        for id, body in zip(ids, bodies, strict=True):
            self._bodies[id] = body

    def unlearn(self, ids: Sequence[int]) -> None:
        for id in ids:
            self._bodies.pop(id, None)
            self._functions.pop(id, None)

    def ids(self) -> list[int]:
        """The ids of all functions in the table."""
        return list(self._bodies)

    def body(self, id: int) -> bytes:
        """The pickled function. Raises LookupError when it was never sent."""
        try:
            return self._bodies[id]
        except KeyError:
            raise LookupError(f"the function {id} of the task is not known to this worker") from None

    def get(self, id: int) -> Callable[..., Any]:
        """The function. Raises LookupError when it was never sent, and what unpickling raises."""
        function = self._functions.get(id)
        if function is None:
            with self._lock:
                function = self._functions.get(id)
                if function is None:
                    function = loads_function(self.body(id))
                    self._functions[id] = function
        return function


def call(spec: Execute, functions: FunctionTable, store: Store) -> Any:
    """The task's value; for a coroutine function, the coroutine. Raises what the task raises, or DependencyGone."""
    if spec.function:
        function = functions.get(spec.function)
        if spec.dependencies is None:
            if spec.buffers is None and spec.payload:
                loaded = _loads(spec.payload)
                if type(loaded) is tuple:  # the hot path of ``map``
                    return function(*loaded)
            return call_with(function, spec.payload, spec.buffers or (), ())
        return call_with(function, spec.payload, spec.buffers or (), list(collect(spec.dependencies, store).values()))
    node = load_node(spec.payload, spec.buffers or ())
    if spec.dependencies is None:
        return node({})
    return node(collect(spec.dependencies, store))


def collect(keys: list[Any], store: Store) -> dict[Any, Any]:
    """The values that a task needs, in the order of its dependencies. Raises DependencyGone, or what the user's mapping raises."""
    try:
        return store.collect(keys)
    except KeyError as error:
        raise DependencyGone from error


def call_elsewhere(body: bytes | None, payload: bytes, buffers: Sequence[Any], values: dict[Any, Any]) -> Any:
    """As ``call``, in another process that has neither the functions nor the values."""
    if body is None:
        return load_node(payload, buffers)(values)
    return call_with(loads_function(body), payload, buffers, list(values.values()))
